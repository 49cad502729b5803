/* Code that is wider than its block is reached with the keyboard, also where the theme thinks of touch alone; its row of buttons has a name. */
for (const [place, block] of document.querySelectorAll("pre").entries()) {
  const arrange = () => {
    const code = block.querySelector(":scope > code");
    if (code && code.scrollWidth > code.clientWidth && !code.hasAttribute("tabindex")) code.tabIndex = 0;
    const buttons = block.querySelector(".md-code__nav:not([aria-label])");
    if (buttons) buttons.setAttribute("aria-label", `Code block ${place + 1}`);
  };
  new MutationObserver(arrange).observe(block, { attributeFilter: ["tabindex"], childList: true, subtree: true });
  arrange();
}
