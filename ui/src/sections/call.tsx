import { Panel } from '@lumino/widgets';
import React from 'react';
import { CALL_ID, CallNotes, CallTools, tabId } from '../components/call';
import type { ICallProps } from '../components/call';
import { fenced, SNIPPETS } from '../snippets';
import { Rendered } from '../rendered';
import type { IPanelOptions } from './options';

/** The call that does what the form does, as it would be typed. */
export class CallSection extends Panel {
  constructor(
    private readonly _options: IPanelOptions,
    private readonly _props: () => ICallProps | null
  ) {
    super();
    this._tools = new Rendered(() => this._render(CallTools));
    this._notes = new Rendered(() => this._render(CallNotes));
    this._code.addClass('jp-NbExec-code');
    this._code.id = CALL_ID;
    this._code.node.setAttribute('role', 'tabpanel');
    this.addWidget(this._tools);
    this.addWidget(this._code);
    this.addWidget(this._notes);
  }

  refresh(): void {
    this._tools.update();
    this._notes.update();
    const props = this._props();
    this._code.node.setAttribute('aria-labelledby', props ? tabId(props.kind) : '');
    const source = props ? fenced(props.text, SNIPPETS[props.kind].fence) : '';
    if (source !== this._source) {
      this._source = source;
      void this._draw(source);
    }
  }

  private async _draw(source: string): Promise<void> {
    const { rendermime } = this._options;
    const renderer = rendermime.createRenderer('text/markdown');
    await renderer.renderModel(rendermime.createModel({ data: { 'text/markdown': source } }));
    if (source !== this._source || this.isDisposed) {
      renderer.dispose();
      return;
    }
    for (const old of [...this._code.widgets]) {
      old.dispose();
    }
    for (const pre of renderer.node.querySelectorAll('pre')) {
      pre.tabIndex = 0;
    }
    this._code.addWidget(renderer);
  }

  private _render(Component: (props: ICallProps) => JSX.Element): JSX.Element {
    const props = this._props();
    return props ? <Component {...props} /> : <></>;
  }

  private readonly _tools: Rendered;
  private readonly _notes: Rendered;
  private readonly _code = new Panel();
  private _source = '';
}
