import { AccordionPanel, Widget } from '@lumino/widgets';
import { arranged, fixedOf, movedOf, wantedBy } from '../arrange';

describe('the heights of the sections', () => {
  it('are what each needs, and the result has the rest', () => {
    expect(arranged([200, 50, 150, 0], 800)).toEqual({ sizes: [200, 450, 150, 0], total: 800 });
  });

  it('leave the form as it is while the result is small', () => {
    expect(arranged([300, 60, 150, 0], 520).sizes).toEqual([300, 70, 150, 0]);
  });

  it('are shared out where all want much', () => {
    const { sizes, total } = arranged([2000, 3000, 150, 0], 800);
    expect(total).toBe(800);
    expect(sizes[0] + sizes[1] + sizes[2]).toBe(800);
    expect(sizes[0]).toBeGreaterThanOrEqual(320);
    expect(sizes[1]).toBeGreaterThanOrEqual(180);
    expect(sizes[2]).toBe(150);
  });

  it('are never too small to be of use: the whole scrolls then', () => {
    expect(arranged([280, 3000, 150, 500], 300)).toEqual({ sizes: [280, 180, 150, 120], total: 730 });
  });

  it('stay as somebody has made them', () => {
    const smaller = new Map([
      [0, 150],
      [1, 500]
    ]);
    expect(arranged([300, 900, 150, 0], 800, smaller).sizes).toEqual([150, 500, 150, 0]);
    expect(arranged([300, 900, 150, 400], 800, smaller).sizes).toEqual([150, 380, 150, 120]);
    const larger = new Map([
      [0, 560],
      [1, 90]
    ]);
    expect(arranged([300, 900, 150, 0], 800, larger)).toEqual({ sizes: [560, 90, 150, 0], total: 800 });
    expect(arranged([0, 900, 150, 0], 800, larger).sizes).toEqual([0, 650, 150, 0]);
  });

  it('leave out what is closed', () => {
    expect(arranged([0, 0, 150, 80], 1000)).toEqual({ sizes: [0, 0, 150, 850], total: 1000 });
    expect(arranged([0, 0, 0, 0], 1000).sizes).toEqual([0, 0, 0, 0]);
  });
});

it('counts titles and handles', () => {
  const accordion = new AccordionPanel({ titleSpace: 29, spacing: 4 });
  for (const title of ['a', 'b', 'c']) {
    const section = new Widget();
    section.title.label = title;
    accordion.addWidget(section);
  }
  expect(fixedOf(accordion)).toBe(3 * 29 + 2 * 4);
  accordion.collapse(0);
  expect(fixedOf(accordion)).toBe(3 * 29 + 4);
  expect(wantedBy(accordion)).toEqual([0, 0, 0]);
  expect(movedOf(accordion, [100, 1, 200])).toEqual([[2, 0]]);
});
