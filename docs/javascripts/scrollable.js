/* Code and tables that are wider than their place are reached with the keyboard: the theme thinks of it for code where a pointer
   hovers. A row of buttons beside code has a name of its own. */
const arrange = () => {
  for (const region of document.querySelectorAll("pre > code, .md-typeset__scrollwrap")) {
    if (region.scrollWidth > region.clientWidth && !region.hasAttribute("tabindex")) region.tabIndex = 0;
  }
  for (const [place, buttons] of document.querySelectorAll(".md-code__nav").entries()) {
    buttons.setAttribute("aria-label", `Code block ${place + 1}`);
  }
};
const content = document.querySelector(".md-content");
new MutationObserver(arrange).observe(content, { attributeFilter: ["tabindex"], childList: true, subtree: true });
arrange();
