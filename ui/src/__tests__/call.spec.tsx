import { fireEvent, waitFor, within } from '@testing-library/dom';
import React from 'react';
import { CALL_ID, CallTools } from '../components/call';
import { Rendered } from '../rendered';
import { SNIPPETS } from '../snippets';
import { attach } from './cleanup';
import { trans } from './fakes';

const KINDS = Object.keys(SNIPPETS);

function drawn() {
  let kind = KINDS[0];
  const copied: string[] = [];
  const widget: Rendered = new Rendered(() => (
    <CallTools
      kind={kind}
      text={`call by ${kind}`}
      openApiUrl=""
      docsUrl=""
      endpoints={[]}
      endpointUrl={() => ''}
      onKind={next => {
        kind = next;
        widget.update();
      }}
      onCopy={text => copied.push(text)}
      trans={trans}
    />
  ));
  attach(widget);
  return { ui: within(widget.node), copied, widget };
}

it('goes through its tabs by keys', async () => {
  const { ui } = drawn();
  const list = await ui.findByRole('tablist');
  const selected = () => ui.getByRole('tab', { selected: true });
  for (const [key, kind] of [
    ['End', KINDS[KINDS.length - 1]],
    ['ArrowRight', KINDS[0]],
    ['ArrowLeft', KINDS[KINDS.length - 1]],
    ['Home', KINDS[0]],
    ['x', KINDS[0]]
  ]) {
    fireEvent.keyDown(list, { key });
    await waitFor(() => expect(selected().textContent).toBe(kind));
  }
  expect(selected().getAttribute('aria-controls')).toBe(CALL_ID);
});

it('copies, and says so until another call is shown', async () => {
  const { ui, copied } = drawn();
  const button = await ui.findByRole('button', { name: 'Copy' });
  const hint = document.getElementById(button.getAttribute('aria-describedby')!);
  expect(hint!.textContent).toContain('JUPYTER_TOKEN');
  fireEvent.click(button);
  expect(copied).toEqual([`call by ${KINDS[0]}`]);
  await ui.findByRole('button', { name: 'Copied' });
  expect(ui.getByRole('status').textContent).toBe('Copied');
  fireEvent.click(ui.getByRole('tab', { name: KINDS[1] }));
  await ui.findByRole('button', { name: 'Copy' });
});
