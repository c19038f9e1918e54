import { runIcon, stopIcon } from '@jupyterlab/ui-components';
import type { TranslationBundle } from '@jupyterlab/translation';
import React from 'react';
import { stringify } from '../json';
import type { ActionId, IMessage } from '../messages';
import { NotAnObject } from '../service';
import type { Activity, IDraft } from '../service';
import type { IDescription, Json, Values } from '../tokens';
import { changed, takesAny } from '../values';
import { FreeValues } from './free';
import { ParametersForm } from './form';
import { Message } from './message';

export interface IKernelChoice {
  name: string;
  label: string;
}

export interface IParametersProps {
  path: string;
  description: IDescription | null;
  values: Values;
  defaults: Values;
  /** The values as JSON, while they are typed so. */
  draft: IDraft | null;
  /** Whether what is typed is no values. */
  isUnreadable: boolean;
  /** Another one whenever the values come from elsewhere than the form. */
  generation: number;
  refusals: { readonly [name: string]: string[] };
  message: IMessage | null;
  /** Whether the notebook has a cell for parameters; null where that is not known. */
  hasParametersCell: boolean | null;
  canMakeParametersCell: boolean;
  /** Kernels to choose from, where the notebook's own cannot be used. */
  kernels: IKernelChoice[] | null;
  kernelName: string | null;
  activity: Activity;
  isBusy: boolean;
  hasRun: boolean;
  /** Whether what will run is not what is seen. */
  isUnsaved: boolean;
  shortcut: string;
  onChange: (values: Values) => void;
  onRaw: (isRaw: boolean) => void;
  onDraft: (text: string) => void;
  onIncomplete: (isIncomplete: boolean) => void;
  onReset: () => void;
  onKernel: (name: string) => void;
  onRun: () => void;
  onCancel: () => void;
  onAction: (action: ActionId, message?: IMessage) => void;
  trans: TranslationBundle;
}

/** What the notebook takes, and the buttons that run it. */
export function Parameters(props: IParametersProps): JSX.Element {
  const { description, values, trans } = props;
  const isRaw = props.draft !== null;
  const different = description ? changed(values, props.defaults) : {};
  const hasFields =
    description !== null && (description.parameters.length > 0 || takesAny(description.schema));
  const isOwn = !Object.keys(different).length && !props.isUnreadable;
  const isRunnable = description !== null && (description.kernel.available || props.kernelName !== null);
  const isRunDisabled = props.isBusy || !isRunnable;
  const isCancelDisabled = !props.isBusy || props.activity !== null;
  const message = props.message && withoutTold(props.message, props);
  return (
    <div className="jp-NbExec-parameters" data-path={props.path}>
      {hasFields && (
        <div className="jp-NbExec-tools">
          <button
            type="button"
            className="jp-NbExec-link"
            aria-disabled={isOwn || undefined}
            onClick={() => !isOwn && props.onReset()}
          >
            {trans.__('Reset')}
          </button>
          <button
            type="button"
            className="jp-NbExec-link"
            aria-pressed={isRaw}
            onClick={() => props.onRaw(!isRaw)}
          >
            {isRaw ? trans.__('Form') : trans.__('JSON')}
          </button>
        </div>
      )}
      {description === null && !props.message && <p className="jp-NbExec-note">{trans.__('Reading…')}</p>}
      {description !== null && props.draft && (
        <RawValues draft={props.draft} refusals={props.refusals} onChange={props.onDraft} trans={trans} />
      )}
      {description !== null && !isRaw && (
        <Fields {...props} description={description} different={different} />
      )}
      {props.kernels && (
        <div className="jp-NbExec-field">
          <label htmlFor="nbexec-kernel">{trans.__('Kernel')}</label>
          <div className="jp-NbExec-input">
            <div className="jp-select-wrapper">
              <select
                id="nbexec-kernel"
                className="jp-mod-styled"
                value={props.kernelName ?? ''}
                onChange={event => props.onKernel(event.target.value)}
              >
                <option value="" disabled>
                  {trans.__('Choose a kernel')}
                </option>
                {props.kernels.map(kernel => (
                  <option key={kernel.name} value={kernel.name}>
                    {kernel.label}
                  </option>
                ))}
              </select>
            </div>
            <div className="jp-NbExec-help">
              {description?.kernel.name
                ? trans.__('The kernel %1 is not installed here.', description.kernel.name)
                : trans.__('This notebook names no kernel.')}
            </div>
          </div>
        </div>
      )}
      {message && <Message message={message} onAction={props.onAction} trans={trans} />}
      <div className="jp-NbExec-buttons">
        <button
          type="button"
          className="jp-NbExec-button jp-mod-accept"
          // It keeps the focus while it cannot be pressed.
          aria-disabled={isRunDisabled || props.isUnreadable || undefined}
          title={trans.__('Run the notebook with these values (%1)', props.shortcut)}
          onClick={() => !isRunDisabled && props.onRun()}
        >
          <runIcon.react tag="span" className="jp-NbExec-buttonIcon" />
          {props.hasRun ? trans.__('Run again') : trans.__('Run')}
        </button>
        <button
          type="button"
          className="jp-NbExec-button"
          aria-disabled={isCancelDisabled || undefined}
          onClick={() => !isCancelDisabled && props.onCancel()}
        >
          <stopIcon.react tag="span" className="jp-NbExec-buttonIcon" />
          {trans.__('Cancel')}
        </button>
        <span className="jp-NbExec-note">{note(props)}</span>
      </div>
    </div>
  );
}

/** A message without what is said where the values are. */
function withoutTold(message: IMessage, props: IParametersProps): IMessage {
  const { description, draft, refusals, values } = props;
  const names = Object.keys(refusals);
  if (!names.length || !description) {
    return message;
  }
  const shown = takesAny(description.schema) ? values : (description.schema.properties ?? {});
  const others = draft ? [] : names.filter(name => !(name in shown));
  return { ...message, detail: refusalWords(refusals, others).join(' ') || undefined };
}

function refusalWords(refusals: IParametersProps['refusals'], names: string[]): string[] {
  return names.flatMap(name => refusals[name].map(problem => `${name}: ${problem}`));
}

function note(props: IParametersProps): string {
  const { trans } = props;
  switch (props.activity) {
    case 'saving':
      return trans.__('Saving…');
    case 'starting':
      return trans.__('Asking the server…');
    default:
      return props.isUnsaved ? trans.__('Runs the notebook as it was saved.') : '';
  }
}

function Fields(props: IParametersProps & { description: IDescription; different: Values }): JSX.Element {
  const { description, trans } = props;
  if (!takesAny(description.schema)) {
    if (!description.parameters.length) {
      return <p className="jp-NbExec-note">{trans.__('This notebook takes no parameters.')}</p>;
    }
    const sources: { [name: string]: string } = {};
    for (const parameter of description.parameters) {
      if (parameter.default_source !== undefined) {
        sources[parameter.name] = parameter.default_source;
      }
    }
    return (
      <MemoForm
        schema={description.schema}
        values={props.values}
        changed={new Set(Object.keys(props.different))}
        sources={sources}
        refusals={props.refusals}
        onChange={props.onChange}
        trans={trans}
      />
    );
  }
  return (
    <>
      {props.hasParametersCell === true ? (
        <p className="jp-NbExec-note">
          {trans.__(
            'The parameters of a notebook in this language (%1) cannot be read: give values by name.',
            description.kernel.language ?? description.kernel.name ?? '?'
          )}
        </p>
      ) : (
        <p className="jp-NbExec-note">
          {trans.__('This notebook declares no parameters.')}{' '}
          {props.canMakeParametersCell && (
            <button
              type="button"
              className="jp-NbExec-link"
              onClick={() => props.onAction('make-parameters-cell')}
            >
              {trans.__('Make the selected cell the parameters cell')}
            </button>
          )}
        </p>
      )}
      <FreeValues
        key={props.generation}
        values={props.values}
        refusals={props.refusals}
        onChange={props.onChange}
        onIncomplete={props.onIncomplete}
        trans={trans}
      />
    </>
  );
}

/** The form is laid out anew for another schema only, not for each answer that holds the same. */
function MemoForm(props: React.ComponentProps<typeof ParametersForm>): JSX.Element {
  const key = stringify([props.schema as unknown as Json, props.sources]);
  const kept = React.useRef({ key, schema: props.schema, sources: props.sources });
  if (kept.current.key !== key) {
    kept.current = { key, schema: props.schema, sources: props.sources };
  }
  return <ParametersForm {...props} schema={kept.current.schema} sources={kept.current.sources} />;
}

/** The values as JSON, for what no form shows well. */
function RawValues(props: {
  draft: IDraft;
  refusals: IParametersProps['refusals'];
  onChange: (text: string) => void;
  trans: TranslationBundle;
}): JSX.Element {
  const { draft, refusals, trans } = props;
  const problems = draft.problem ? [problemWords(draft.problem, trans)] : [];
  problems.push(...refusalWords(refusals, Object.keys(refusals)));
  return (
    <div className="jp-NbExec-raw">
      <label htmlFor="nbexec-raw">{trans.__('Values that differ from those of the notebook, as JSON')}</label>
      <textarea
        id="nbexec-raw"
        className="jp-mod-styled"
        rows={Math.min(16, Math.max(5, draft.text.split('\n').length))}
        spellCheck={false}
        value={draft.text}
        aria-invalid={problems.length ? true : undefined}
        aria-describedby="nbexec-raw-problem"
        onChange={event => props.onChange(event.target.value)}
      />
      <div id="nbexec-raw-problem" className="jp-NbExec-refusal" role="alert">
        {problems.map(problem => (
          <div key={problem}>{problem}</div>
        ))}
      </div>
    </div>
  );
}

function problemWords(problem: Error, trans: TranslationBundle): string {
  return problem instanceof NotAnObject
    ? trans.__('This must be an object: {"name": value, …}')
    : problem.message;
}
