import { fireEvent, within } from '@testing-library/dom';
import React from 'react';
import { History } from '../components/history';
import type { IHistoryProps } from '../components/history';
import { Rendered } from '../rendered';
import { attach } from './cleanup';
import { aRun, ENDED, trans } from './fakes';

const RUN = aRun({ ...ENDED, id: 'one', parameters: { n: 5 } });

function drawn(props: Partial<IHistoryProps> = {}) {
  const nothing = () => undefined;
  const given: IHistoryProps = {
    runs: [RUN],
    hasMore: false,
    shownId: null,
    isBusy: false,
    onShow: nothing,
    onAgain: nothing,
    onCopy: nothing,
    onMenu: nothing,
    onMore: nothing,
    trans,
    ...props
  };
  const widget = new Rendered(() => <History {...given} />);
  attach(widget);
  return within(widget.node);
}

it('shows the time without seconds, and reads it aloud with them', async () => {
  const ui = drawn();
  const show = await ui.findByTitle('Show the result of this run');
  expect(show.textContent).toMatch(/^\d\d:\d\d$/);
  expect(show.getAttribute('aria-label')).toMatch(/^\d\d:\d\d:\d\d$/);
});

it('says that a call was copied', async () => {
  const copied: string[] = [];
  const ui = drawn({ onCopy: run => copied.push(run.id) });
  fireEvent.click(await ui.findByRole('button', { name: /^Copy the run/ }));
  expect(copied).toEqual(['one']);
  await ui.findByRole('button', { name: 'Copied' });
  expect(ui.getByRole('status').textContent).toBe('Copied');
});

it('says which cell has failed', async () => {
  const error = { code: 'cell_error', cell: 2, traceback: [] } as any;
  const ui = drawn({ runs: [{ ...RUN, status: 'failed', error }] });
  await ui.findByText('error in cell 3');
});
