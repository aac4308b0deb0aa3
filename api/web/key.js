// The key of a service that asks for one: kept in this tab only.

import { $ } from "./dom.js";

const NAME = "moe-placement.key";
let asking = null;

export const key = () => sessionStorage.getItem(NAME);

export function forget() {
  sessionStorage.removeItem(NAME);
  $("forget-key").hidden = true;
}

/** Ask for a key; once, however many requests were refused. Resolves to whether one was given. */
export function ask() {
  asking ??= new Promise((resolve) => {
    const dialog = $("key-dialog");
    $("key").value = "";
    dialog.returnValue = "";
    dialog.addEventListener("close", () => {
      const given = $("key").value.trim();
      $("key").value = "";
      asking = null;
      if (dialog.returnValue !== "ok" || !given) return resolve(false);
      sessionStorage.setItem(NAME, given);
      $("forget-key").hidden = false;
      return resolve(true);
    }, { once: true });
    dialog.showModal();
  });
  return asking;
}

export function setUp() {
  $("forget-key").hidden = key() === null;
  $("forget-key").addEventListener("click", () => { forget(); location.reload(); });
}
