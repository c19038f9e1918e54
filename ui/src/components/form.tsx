import { addIcon, deleteIcon, FormComponent, moveDownIcon, moveUpIcon } from '@jupyterlab/ui-components';
import type { TranslationBundle } from '@jupyterlab/translation';
import type {
  ArrayFieldTemplateProps,
  FieldProps,
  FieldTemplateProps,
  ObjectFieldTemplateProps,
  RJSFSchema,
  UiSchema,
  ValidatorType,
  WidgetProps
} from '@rjsf/utils';
import React from 'react';
import type { ISchema, Json, Values } from '../tokens';
import { boundWords, choices, editor, isNullable, readAny, readNumber, typeWords, writeAny } from '../values';
import { IconButton } from './button';

export interface IParametersFormProps {
  schema: ISchema;
  values: Values;
  /** Names of parameters that have another value than the notebook's own. */
  changed: ReadonlySet<string>;
  /** Defaults that are no literals, as source. */
  sources: { readonly [name: string]: string };
  refusals: { readonly [name: string]: string[] };
  onChange: (values: Values) => void;
  trans: TranslationBundle;
}

/** What the templates need beyond what the library gives them. */
type IContext = Pick<IParametersFormProps, 'changed' | 'refusals' | 'trans'>;

/** The form of a notebook's parameters, made from their schema. */
export function ParametersForm(props: IParametersFormProps): JSX.Element {
  const { schema, sources, trans } = props;
  const { fields, uiSchema } = React.useMemo(() => layOut(schema, sources, trans), [schema, sources, trans]);
  const context: IContext = props;
  return (
    <FormComponent
      schema={fields}
      uiSchema={uiSchema as any}
      formData={props.values as any}
      formContext={context}
      // The server alone judges: what a notebook says of itself, such as a pattern, is not evaluated here.
      validator={NO_VALIDATOR}
      noValidate
      noHtml5Validate
      idPrefix="nbexec"
      tagName="div"
      templates={TEMPLATES as any}
      widgets={WIDGETS}
      fields={FIELDS}
      onChange={event => props.onChange((event.formData ?? {}) as unknown as Values)}
    />
  );
}

/** Lay out the form: what the library is given is types and choices only. */
export function layOut(
  schema: ISchema,
  sources: { readonly [name: string]: string },
  trans: TranslationBundle
): { fields: RJSFSchema; uiSchema: UiSchema } {
  const properties: { [name: string]: RJSFSchema } = {};
  const uiSchema: UiSchema = { 'ui:submitButtonOptions': { norender: true } };
  for (const [name, property] of Object.entries(schema.properties ?? {})) {
    const { field, ui } = layOutField(property);
    properties[name] = { ...field, title: name };
    const bounds = boundWords(property);
    const words = [property.description, bounds].filter(Boolean).join(' · ');
    const placeholder = sources[name] || (isNullable(property) ? 'null' : undefined);
    uiSchema[name] = {
      ...ui,
      'ui:title': name,
      'ui:description': words || (editor(property) === 'json' ? jsonHint(property, trans) : undefined),
      'ui:placeholder': placeholder
    };
  }
  return { fields: { type: 'object', properties, required: schema.required ?? [] }, uiSchema };
}

function layOutField(schema: ISchema): { field: RJSFSchema; ui: UiSchema } {
  const empty = isNullable(schema) ? null : undefined;
  switch (editor(schema)) {
    case 'choice':
      return { field: { enum: choices(schema)! as any }, ui: {} };
    case 'check':
      return { field: { type: 'boolean' }, ui: {} };
    case 'number':
      return { field: { type: 'number' }, ui: { 'ui:field': 'nbexecNumber', 'ui:emptyValue': empty } };
    case 'text':
      return { field: { type: 'string' }, ui: { 'ui:emptyValue': empty === null ? null : '' } };
    case 'date':
      return {
        field: { type: 'string' },
        ui: { 'ui:emptyValue': empty, 'ui:options': { inputType: 'date' } }
      };
    case 'list': {
      const { field, ui } = layOutField(schema.items!);
      return { field: { type: 'array', items: field }, ui: { items: ui } };
    }
    default:
      return { field: {}, ui: { 'ui:field': 'nbexecJson', 'ui:emptyValue': empty } };
  }
}

function jsonHint(schema: ISchema, trans: TranslationBundle): string {
  const words = typeWords(schema);
  return words ? trans.__('JSON: %1', words) : trans.__('JSON, or text');
}

// JupyterLab's own templates draw labels as `div`: no input would have a name for a screen reader.

function FieldTemplate(props: FieldTemplateProps): JSX.Element {
  const { id, label, formContext, trans } = { ...props, trans: props.formContext.trans as TranslationBundle };
  const { changed, refusals } = formContext as IContext;
  if (props.hidden || id === 'nbexec') {
    return <>{props.children}</>;
  }
  const isTopLevel = id === `nbexec_${label}`;
  const isGroup = props.schema.type === 'array';
  const problems = isTopLevel ? (refusals[label] ?? []) : [];
  const isChanged = isTopLevel && changed.has(label);
  const isItem = !isTopLevel;
  return (
    <div
      className={`jp-NbExec-field${isChanged ? ' jp-mod-changed' : ''}${problems.length ? ' jp-mod-refused' : ''}${
        isItem ? ' jp-mod-item' : ''
      }`}
    >
      {!isGroup && (
        <label htmlFor={id} className={isItem ? 'jp-NbExec-hidden' : ''}>
          {label}
          {props.required && <span title={trans.__('required')}> *</span>}
          {isChanged && <span className="jp-NbExec-hidden"> ({trans.__('changed')})</span>}
        </label>
      )}
      <div className="jp-NbExec-input">
        {props.children}
        {props.rawDescription && (
          <div className="jp-NbExec-help" id={`${id}__description`}>
            {props.rawDescription}
          </div>
        )}
        {problems.map(problem => (
          <div key={problem} className="jp-NbExec-refusal" id={`${id}__error`} role="alert">
            {problem}
          </div>
        ))}
      </div>
    </div>
  );
}

function ArrayFieldTemplate(props: ArrayFieldTemplateProps): JSX.Element {
  const { trans, changed } = props.formContext as IContext;
  return (
    <fieldset className={`jp-NbExec-list${changed.has(props.title) ? ' jp-mod-changed' : ''}`}>
      <legend>
        {props.title}
        {props.required && <span title={trans.__('required')}> *</span>}
      </legend>
      {props.items.map(item => (
        <div key={item.key} className="jp-NbExec-item">
          {item.children}
          <IconButton
            icon={moveUpIcon}
            label={trans.__('Move item %1 up', item.index + 1)}
            isDisabled={!item.hasMoveUp}
            onClick={item.onReorderClick(item.index, item.index - 1)}
          />
          <IconButton
            icon={moveDownIcon}
            label={trans.__('Move item %1 down', item.index + 1)}
            isDisabled={!item.hasMoveDown}
            onClick={item.onReorderClick(item.index, item.index + 1)}
          />
          <IconButton
            icon={deleteIcon}
            label={trans.__('Remove item %1', item.index + 1)}
            onClick={item.onDropIndexClick(item.index)}
          />
        </div>
      ))}
      {props.canAdd && (
        <IconButton icon={addIcon} label={trans.__('Add to %1', props.title)} onClick={props.onAddClick} />
      )}
    </fieldset>
  );
}

function ObjectFieldTemplate(props: ObjectFieldTemplateProps): JSX.Element {
  return <>{props.properties.map(property => property.content)}</>;
}

/** Attributes by which an input is known and described. */
function described(id: string, context: unknown): React.InputHTMLAttributes<HTMLElement> {
  const name = id.replace(/^nbexec_/, '');
  const isRefused = name in ((context as IContext).refusals ?? {});
  return {
    id,
    className: 'jp-mod-styled',
    'aria-invalid': isRefused || undefined,
    'aria-describedby': `${id}__description ${id}__error`
  };
}

function BaseInputTemplate(props: WidgetProps): JSX.Element {
  const { id, value, options, placeholder, required, onChange, formContext } = props;
  return (
    <input
      {...described(id, formContext)}
      type={options.inputType ?? 'text'}
      value={value ?? ''}
      placeholder={placeholder}
      required={required}
      onChange={event => onChange(event.target.value === '' ? options.emptyValue : event.target.value)}
    />
  );
}

function CheckboxWidget(props: WidgetProps): JSX.Element {
  const { id, value, onChange, formContext } = props;
  return (
    <input
      {...described(id, formContext)}
      type="checkbox"
      checked={value === true}
      onChange={event => onChange(event.target.checked)}
    />
  );
}

function SelectWidget(props: WidgetProps): JSX.Element {
  const { id, value, options, onChange, formContext } = props;
  const offered = options.enumOptions ?? [];
  const chosen = offered.findIndex(option => option.value === value);
  return (
    <div className="jp-select-wrapper">
      <select
        {...described(id, formContext)}
        value={chosen}
        onChange={event => onChange(offered[Number(event.target.value)]?.value)}
      >
        {chosen < 0 && <option value={-1}></option>}
        {offered.map((option, index) => (
          <option key={index} value={index}>
            {writeAny(option.value)}
          </option>
        ))}
      </select>
    </div>
  );
}

/** An input whose text is kept while it is edited, though it may stand for the same value as another. */
function TextOf(
  props: Pick<FieldProps, 'formData' | 'uiSchema' | 'idSchema' | 'formContext' | 'required' | 'onChange'> & {
    read: (text: string) => Json | undefined;
    inputMode?: 'decimal';
  }
): JSX.Element {
  const { formData, uiSchema, idSchema, formContext, read } = props;
  const [text, setText] = React.useState(writeAny(formData));
  const shown = same(read(text), formData, uiSchema?.['ui:emptyValue'])
    ? text
    : shownValue(formData, uiSchema);
  return (
    <input
      {...described(idSchema.$id, formContext)}
      type="text"
      inputMode={props.inputMode}
      spellCheck={false}
      value={shown}
      required={props.required}
      placeholder={uiSchema?.['ui:placeholder']}
      onChange={event => {
        setText(event.target.value);
        props.onChange(read(event.target.value) ?? uiSchema?.['ui:emptyValue']);
      }}
    />
  );
}

function shownValue(value: Json | undefined, uiSchema: UiSchema | undefined): string {
  return value === null && uiSchema?.['ui:emptyValue'] === null ? '' : writeAny(value);
}

function same(read: Json | undefined, value: Json | undefined, empty: Json | undefined): boolean {
  return writeAny(read === undefined ? empty : read) === writeAny(value);
}

function NumberField(props: FieldProps): JSX.Element {
  const { formData, uiSchema, idSchema, formContext, required, onChange } = props;
  const given = { formData, uiSchema, idSchema, formContext, required, onChange };
  return <TextOf {...given} read={readNumber} inputMode="decimal" />;
}

function JsonField(props: FieldProps): JSX.Element {
  const { formData, uiSchema, idSchema, formContext, required, onChange } = props;
  return <TextOf {...{ formData, uiSchema, idSchema, formContext, required, onChange }} read={readAny} />;
}

const TEMPLATES = { FieldTemplate, ArrayFieldTemplate, ObjectFieldTemplate, BaseInputTemplate };
const WIDGETS = { CheckboxWidget, SelectWidget };
const FIELDS = { nbexecNumber: NumberField, nbexecJson: JsonField };

const NO_VALIDATOR: ValidatorType = {
  validateFormData: () => ({ errors: [], errorSchema: {} }),
  toErrorList: () => [],
  isValid: () => true,
  rawValidation: () => ({ errors: [] })
};
