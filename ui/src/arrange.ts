import type { AccordionLayout, AccordionPanel, Widget } from '@lumino/widgets';

/** How the heights of sections are shared out. */
export interface IArranged {
  /** Pixels of each section; 0 for those that are closed. */
  sizes: number[];
  /** Pixels of all of them: more than there are where the panel scrolls as a whole. */
  total: number;
}

/** The sections, from top to bottom. */
const PARAMETERS = 0;
const RESULT = 1;
const CALL = 2;
const HISTORY = 3;

/** Pixels that a section has at least, if it can fill them; and its share of the room, where that is more. */
const LEAST = [300, 180, 160, 120];
const SHARE = [0.4, 0.3, 0, 0];

/** Who gets first what is left. */
const ORDER = [PARAMETERS, CALL, RESULT, HISTORY];

/** Heights that somebody has given to sections by hand. */
export type Moved = ReadonlyMap<number, number>;

/** Give each section the height that it wants, or its least; and the result what is left. */
export function arranged(natural: number[], room: number, moved: Moved = new Map()): IArranged {
  // What the result gets depends on the others.
  const byHand = (index: number) => (index === RESULT ? undefined : moved.get(index));
  const wanted = natural.map((each, index) => (each && byHand(index)) || each);
  const sizes = wanted.map((each, index) => {
    const least = Math.max(LEAST[index], SHARE[index] * room);
    return Math.min(each, byHand(index) ?? Math.min(least, moved.get(index) ?? least));
  });
  const total = Math.max(room, sum(sizes));
  let rest = total - sum(sizes);
  for (const index of ORDER) {
    const more = Math.min(rest, wanted[index] - sizes[index]);
    sizes[index] += more;
    rest -= more;
  }
  const last = wanted[RESULT] ? RESULT : wanted.reduce((found, each, index) => (each ? index : found), -1);
  if (last >= 0) {
    sizes[last] += rest;
  }
  return { sizes, total };
}

/** Pixels that each section needs to be seen as a whole; 0 for those that are closed. */
export function wantedBy(accordion: AccordionPanel): number[] {
  return accordion.widgets.map(section => (section.isHidden ? 0 : needed(section)));
}

/** Pixels of the titles, and of the handles between the sections. */
export function fixedOf(accordion: AccordionPanel): number {
  const { titleSpace } = accordion.layout as AccordionLayout;
  const open = accordion.widgets.filter(section => !section.isHidden).length;
  return accordion.widgets.length * titleSpace + Math.max(0, open - 1) * accordion.spacing;
}

/** The open sections that have other heights than these: somebody has moved a handle. */
export function movedOf(accordion: AccordionPanel, sizes: number[]): [number, number][] {
  return accordion.widgets.flatMap((section, index): [number, number][] => {
    const height = section.node.offsetHeight;
    return section.isHidden || Math.abs(height - sizes[index]) <= 1 ? [] : [[index, height]];
  });
}

/** A section scrolls what is in it, whose height is its own. */
function needed(section: Widget): number {
  const content = section.node.firstElementChild as HTMLElement | null;
  const { paddingTop, paddingBottom } = getComputedStyle(section.node);
  const height = content?.getBoundingClientRect().height ?? 0;
  return Math.ceil(height + (parseFloat(paddingTop) || 0) + (parseFloat(paddingBottom) || 0));
}

function sum(numbers: number[]): number {
  return numbers.reduce((total, each) => total + each, 0);
}
