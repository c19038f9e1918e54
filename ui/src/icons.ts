import { LabIcon } from '@jupyterlab/ui-components';

/** A call that runs: brackets around a triangle. Other than that of running a cell. */
export const serviceIcon = new LabIcon({
  name: 'jupyter-nbexec:service',
  svgstr: `<svg xmlns="http://www.w3.org/2000/svg" width="16" viewBox="0 0 24 24">
  <g class="jp-icon3" fill="#616161">
    <path d="M8 3H3v18h5v-2H5V5h3z"/>
    <path d="M16 3h5v18h-5v-2h3V5h-3z"/>
    <path d="M9 7v10l7.5-5z"/>
  </g>
</svg>`
});

/** A clock: it waits. */
export const queuedIcon = mark(
  'queued',
  'M12 2a10 10 0 1 0 0 20 10 10 0 0 0 0-20m0 18a8 8 0 1 1 0-16 8 8 0 0 1 0 16m.5-13H11v6l5.2 3.1.8-1.2-4.5-2.7z'
);

/** An hourglass: it took too long. */
export const timeoutIcon = mark(
  'timeout',
  'M6 2v6l4 4-4 4v6h12v-6l-4-4 4-4V2zm10 14.5V20H8v-3.5l4-4zm-4-5-4-4V4h8v3.5z'
);

/** A question mark: nobody knows any more. */
export const goneIcon = mark(
  'gone',
  'M11 18h2v-2h-2zm1-16a10 10 0 1 0 0 20 10 10 0 0 0 0-20m0 18a8 8 0 1 1 0-16 8 8 0 0 1 0 16m0-14a4 4 0 0 0-4 4h2c0-1.1.9-2 2-2s2 .9 2 2c0 2-3 1.8-3 5h2c0-2.2 3-2.5 3-5a4 4 0 0 0-4-4'
);

function mark(name: string, path: string): LabIcon {
  return new LabIcon({
    name: `jupyter-nbexec:${name}`,
    svgstr: `<svg xmlns="http://www.w3.org/2000/svg" width="16" viewBox="0 0 24 24">
  <path class="jp-icon3" fill="#616161" d="${path}"/>
</svg>`
  });
}
