import type { AccordionPanel, Widget } from '@lumino/widgets';

/** Which section takes what the others leave. */
const RESULT = 1;
/** Pixels of a section's title, and those that the result gets at least; its share, once there is one. */
const TITLE = 32;
const LEAST = 48;
const LEAST_WITH_RESULT = 120;
const SHARE = 0.4;

/** Give each section the height that it needs, and the result what is left. */
export function sizesOf(wanted: number[], height: number, hasResult: boolean): number[] {
  const room = height - wanted.length * TITLE;
  const others = wanted.reduce((sum, each, index) => (index === RESULT ? sum : sum + each), 0);
  const least = hasResult ? Math.max(LEAST_WITH_RESULT, room * SHARE) : LEAST;
  const scale = Math.min(1, Math.max(room - least, LEAST) / Math.max(others, 1));
  return wanted.map((each, index) => {
    if (index !== RESULT) {
      return Math.round(each * scale);
    }
    return each ? Math.round(Math.max(room - others * scale, least)) : 0;
  });
}

/** Pixels that each section needs to be seen as a whole; 0 for those that are closed. */
export function wantedBy(accordion: AccordionPanel): number[] {
  return accordion.widgets.map(widget => (widget.isHidden ? 0 : needed(widget)));
}

/** Pixels that a section needs to be seen as a whole. */
function needed(widget: Widget): number {
  const node = widget.node;
  const last = node.lastElementChild;
  if (!last) {
    return 0;
  }
  const top = node.getBoundingClientRect().top - node.scrollTop;
  const bottom = Array.from(node.children).reduce(
    (lowest, child) => Math.max(lowest, child.getBoundingClientRect().bottom),
    0
  );
  return Math.ceil(bottom - top + 12);
}
