import { within } from '@testing-library/dom';
import React from 'react';
import { Badge } from '../components/status';
import { Rendered } from '../rendered';
import type { Phase } from '../run';
import { attach } from './cleanup';
import { trans } from './fakes';

const PHASES: Phase[] = [
  'queued',
  'starting',
  'running',
  'lost',
  'ok',
  'error',
  'timeout',
  'cancelled',
  'gone'
];

it('has a drawing of its own for each state, and a word', async () => {
  const widget = new Rendered(() => (
    <>
      {PHASES.map(phase => (
        <Badge key={phase} phase={phase} cell={phase === 'error' ? 1 : null} trans={trans} />
      ))}
    </>
  ));
  attach(widget);
  await within(widget.node).findByText('error in cell 2');
  const badges = Array.from(widget.node.querySelectorAll('.jp-NbExec-badge'));
  const drawings = badges.map(badge => badge.querySelector('svg')!.innerHTML);
  expect(new Set(drawings).size).toBe(PHASES.length);
  expect(new Set(badges.map(badge => badge.textContent)).size).toBe(PHASES.length);
});
