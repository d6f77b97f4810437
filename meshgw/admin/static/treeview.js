// @ts-check
/**
 * The behaviour of a tree (role `tree`, items `treeitem`, branches `group`) by keyboard and mouse, after the pattern of the W3C's
 * authoring practices: one item is in the tab order, arrows move, left and right close and open.
 */

const ITEM = "[role=treeitem]";

export class TreeView {
  /**
   * @param {HTMLElement} tree an element with role `tree`, whose items have `data-place`; what is in it may be replaced, see `refresh`
   * @param {{onFocus?: (item: HTMLElement | null) => void, onAct?: (item: HTMLElement) => void}} [listeners]
   *   `onFocus` is told of the item under the pointer or with the focus, `onAct` of Enter on one
   */
  constructor(tree, { onFocus, onAct } = {}) {
    this.tree = tree;
    this.onFocus = onFocus ?? (() => {});
    this.onAct = onAct ?? (() => {});
    /** @type {Set<string>} */
    this.closed = new Set();
    tree.addEventListener("keydown", (event) => this.pressed(event));
    tree.addEventListener("click", (event) => this.clicked(event));
    tree.addEventListener("focusin", (event) => this.focused(event.target));
    tree.addEventListener("focusout", () => this.onFocus(null));
    tree.addEventListener("mouseover", (event) => this.onFocus(itemOf(event.target)));
    tree.addEventListener("mouseleave", () => this.onFocus(itemOf(document.activeElement)));
  }

  /** Take over new items: those that were closed stay so, and the focus returns to where it was. */
  refresh() {
    const current = this.current;
    for (const item of this.items()) {
      item.tabIndex = -1;
      if (item.hasAttribute("aria-expanded")) {
        this.setOpen(item, !this.closed.has(item.dataset.place ?? ""));
      }
    }
    const again = this.items().find((item) => item.dataset.place === current) ?? this.items()[0];
    if (again) {
      again.tabIndex = 0;
      if (this.hadFocus) {
        again.focus();
      }
    }
    this.hadFocus = false;
  }

  /** Call before the items are replaced, so that `refresh` can give the focus back. */
  remember() {
    this.hadFocus = this.tree.contains(document.activeElement) && itemOf(document.activeElement) === document.activeElement;
  }

  /** Open or close all items that have something below. @param {boolean} isOpen */
  setAll(isOpen) {
    for (const item of this.items()) {
      if (item.hasAttribute("aria-expanded")) {
        this.setOpen(item, isOpen);
      }
    }
    const current = this.items().find((item) => item.tabIndex === 0);
    if (current && !isVisible(current)) {
      this.moveTo(this.items()[0], false);
    }
  }

  /** @returns {HTMLElement[]} */
  items() {
    return [...this.tree.querySelectorAll(ITEM)].map((item) => /** @type {HTMLElement} */ (item));
  }

  /** @param {HTMLElement} item @param {boolean} isOpen */
  setOpen(item, isOpen) {
    item.setAttribute("aria-expanded", String(isOpen));
    const key = item.dataset.place ?? "";
    if (isOpen) {
      this.closed.delete(key);
    } else {
      this.closed.add(key);
    }
  }

  /** @param {KeyboardEvent} event */
  pressed(event) {
    const item = itemOf(event.target);
    if (item === null || item !== event.target || event.ctrlKey || event.metaKey || event.altKey) return;
    if (this.act(item, event.key)) {
      event.preventDefault();
      event.stopPropagation();
    }
  }

  /** @param {HTMLElement} item @param {string} key @returns {boolean} whether the key means something here */
  act(item, key) {
    const visible = this.items().filter(isVisible);
    const at = visible.indexOf(item);
    const isOpen = item.getAttribute("aria-expanded");
    switch (key) {
      case "ArrowDown":
        this.moveTo(visible[at + 1]);
        return true;
      case "ArrowUp":
        this.moveTo(visible[at - 1]);
        return true;
      case "Home":
        this.moveTo(visible[0]);
        return true;
      case "End":
        this.moveTo(visible[visible.length - 1]);
        return true;
      case "ArrowRight":
        if (isOpen === "false") {
          this.setOpen(item, true);
        } else if (isOpen === "true") {
          this.moveTo(visible[at + 1]);
        }
        return true;
      case "ArrowLeft":
        if (isOpen === "true") {
          this.setOpen(item, false);
        } else {
          this.moveTo(parentOf(item));
        }
        return true;
      case "*":
        this.setAll(true);
        return true;
      case "Enter":
        this.onAct(item);
        return true;
      default:
        return false;
    }
  }

  /** @param {HTMLElement | null | undefined} item @param {boolean} [withFocus] */
  moveTo(item, withFocus = true) {
    if (!item) return;
    for (const other of this.items()) {
      other.tabIndex = other === item ? 0 : -1;
    }
    this.current = item.dataset.place;
    if (withFocus) {
      item.focus();
    }
  }

  /** @param {MouseEvent} event */
  clicked(event) {
    const target = /** @type {Element} */ (event.target);
    const item = itemOf(target);
    if (item === null || (target.closest("button, a") && !target.closest(".twisty"))) return;
    if (target.closest(".twisty") && item.hasAttribute("aria-expanded")) {
      this.setOpen(item, item.getAttribute("aria-expanded") !== "true");
    }
    this.moveTo(item);
  }

  /** @param {EventTarget | null} target */
  focused(target) {
    const item = itemOf(target);
    if (item !== null && item === target) {
      this.moveTo(item, false);
    }
    this.onFocus(item);
  }
}

/** @param {EventTarget | null} target @returns {HTMLElement | null} */
function itemOf(target) {
  return target instanceof Element ? target.closest(ITEM) : null;
}

/** @param {HTMLElement} item */
function parentOf(item) {
  return itemOf(item.parentElement);
}

/** @param {HTMLElement} item */
function isVisible(item) {
  for (let above = parentOf(item); above; above = parentOf(above)) {
    if (above.getAttribute("aria-expanded") === "false") return false;
  }
  return true;
}
