import { LabIcon } from '@jupyterlab/ui-components';

/** A call that runs: brackets around a triangle. Other than that of running a cell. */
export const serviceIcon = new LabIcon({
  name: 'jupyter-nbexec:service',
  svgstr: `<svg xmlns="http://www.w3.org/2000/svg" width="16" viewBox="0 0 24 24">
  <g class="jp-icon3" fill="#616161">
    <path d="M8 4H4v16h4v-2H6V6h2z"/>
    <path d="M16 4h4v16h-4v-2h2V6h-2z"/>
    <path d="M9 7.5v9l7-4.5z"/>
  </g>
</svg>`
});
