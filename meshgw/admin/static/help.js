// The help page.

import { mountShell } from "./shell.js";

mountShell({ page: "help", title: "Help" });
