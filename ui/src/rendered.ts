import { ReactWidget } from '@jupyterlab/ui-components';

/** A widget that draws what a function gives. */
export class Rendered extends ReactWidget {
  constructor(private readonly _render: () => JSX.Element) {
    super();
  }

  protected render(): JSX.Element {
    return this._render();
  }
}
