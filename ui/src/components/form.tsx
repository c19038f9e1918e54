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
import { equal } from '../json';
import type { ISchema, Json, Values } from '../tokens';
import {
  boundWords,
  choices,
  editor,
  isDate,
  isNullable,
  readAny,
  readNumber,
  typeWords,
  writeAny
} from '../values';
import { IconButton } from './button';
import { Text } from './text';

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
      // No name of a parameter holds it: no two fields have the same id.
      idSeparator=":"
      tagName="div"
      templates={TEMPLATES as any}
      widgets={WIDGETS}
      fields={FIELDS}
      onChange={event => props.onChange(withoutMadeUp((event.formData ?? {}) as Values, props.values))}
    />
  );
}

/** Values without the empty lists that the library makes of those that are not known: nobody can type one. */
function withoutMadeUp(values: Values, before: Values): Values {
  return Object.fromEntries(
    Object.entries(values).filter(
      ([name, value]) => before[name] !== undefined || !Array.isArray(value) || value.length > 0
    )
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
    const source = sources[name];
    const placeholder = source || (isNullable(property) ? 'null' : undefined);
    // Where nothing can be typed, there is no place for it inside of the field.
    const isTyped = ['number', 'text', 'json'].includes(editor(property));
    const own = source && !isTyped ? trans.__('default: %1', source) : '';
    const words = [property.description, bounds, own].filter(Boolean).join(' · ');
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
    case 'text': {
      const isLong = typeof schema.default === 'string' && schema.default.includes('\n');
      return {
        field: { type: 'string' },
        ui: { 'ui:emptyValue': empty === null ? null : '', 'ui:options': { isLong } }
      };
    }
    case 'date':
      return {
        field: { type: 'string' },
        ui: { 'ui:emptyValue': empty, 'ui:options': { inputType: 'date' } }
      };
    case 'list': {
      const { field, ui } = layOutField(schema.items!);
      const blank = blankItem(schema.items!);
      const items = { ...field, default: blank as any };
      return { field: { type: 'array', items }, ui: { items: { ...ui, 'ui:emptyValue': '' } } };
    }
    default:
      return { field: {}, ui: { 'ui:field': 'nbexecJson', 'ui:emptyValue': empty } };
  }
}

/** What a new item of a list is, and is shown as: never a null that nobody sees. */
function blankItem(schema: ISchema): Json {
  switch (editor(schema)) {
    case 'choice':
      return choices(schema)![0];
    case 'check':
      return false;
    default:
      return '';
  }
}

function jsonHint(schema: ISchema, trans: TranslationBundle): string {
  const words = typeWords(schema);
  return words ? trans.__('JSON: %1', words) : trans.__('JSON, or text');
}

// JupyterLab's own templates draw labels as `div`: no input would have a name for a screen reader.

function FieldTemplate(props: FieldTemplateProps): JSX.Element {
  const { id, label } = props;
  const { changed, refusals, trans } = props.formContext as IContext;
  const { name, index } = placeOf(id);
  if (props.hidden || name === undefined) {
    return <>{props.children}</>;
  }
  const isItem = index !== null;
  const isGroup = props.schema.type === 'array';
  const problems = isItem ? [] : (refusals[name] ?? []);
  const isChanged = !isItem && changed.has(name);
  return (
    <div
      className={`jp-NbExec-field${isChanged ? ' jp-mod-changed' : ''}${problems.length ? ' jp-mod-refused' : ''}${
        isItem ? ' jp-mod-item' : ''
      }`}
    >
      {isItem && (
        <label htmlFor={id} className="jp-NbExec-hidden">
          {trans.__('%1, item %2', name, index + 1)}
        </label>
      )}
      {!isItem && !isGroup && (
        <label htmlFor={id} title={label}>
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
        {problems.length > 0 && (
          <div className="jp-NbExec-refusal" id={`${id}__error`} role="alert">
            {problems.map(problem => (
              <div key={problem}>{problem}</div>
            ))}
          </div>
        )}
      </div>
    </div>
  );
}

function ArrayFieldTemplate(props: ArrayFieldTemplateProps): JSX.Element {
  const { trans, changed } = props.formContext as IContext;
  const { items, title } = props;
  const node = React.useRef<HTMLFieldSetElement>(null);
  const toFocus = React.useRef('');
  // The focus goes to what was added, and with what is moved; it does not go away with what was removed.
  React.useEffect(() => {
    if (toFocus.current) {
      node.current!.querySelector<HTMLElement>(toFocus.current)?.focus();
      toFocus.current = '';
    }
  });
  return (
    <fieldset ref={node} className={`jp-NbExec-list${changed.has(title) ? ' jp-mod-changed' : ''}`}>
      <legend title={title}>
        {title}
        {props.required && <span title={trans.__('required')}> *</span>}
      </legend>
      {items.map(item => (
        <div key={item.key} className="jp-NbExec-item">
          {item.children}
          <IconButton
            icon={moveUpIcon}
            label={trans.__('Move item %1 up', item.index + 1)}
            isDisabled={!item.hasMoveUp}
            onClick={event => {
              toFocus.current = `.jp-NbExec-item:nth-of-type(${item.index}) > button:nth-of-type(1)`;
              item.onReorderClick(item.index, item.index - 1)(event);
            }}
          />
          <IconButton
            icon={moveDownIcon}
            label={trans.__('Move item %1 down', item.index + 1)}
            isDisabled={!item.hasMoveDown}
            onClick={event => {
              toFocus.current = `.jp-NbExec-item:nth-of-type(${item.index + 2}) > button:nth-of-type(2)`;
              item.onReorderClick(item.index, item.index + 1)(event);
            }}
          />
          <IconButton
            icon={deleteIcon}
            label={trans.__('Remove item %1', item.index + 1)}
            onClick={event => {
              toFocus.current = ':scope > .jp-NbExec-iconButton';
              item.onDropIndexClick(item.index)(event);
            }}
          />
        </div>
      ))}
      {props.canAdd && (
        <IconButton
          icon={addIcon}
          label={trans.__('Add to %1', title)}
          onClick={event => {
            toFocus.current = `.jp-NbExec-item:nth-of-type(${items.length + 1}) :is(input, select, textarea)`;
            props.onAddClick(event);
          }}
        />
      )}
    </fieldset>
  );
}

function ObjectFieldTemplate(props: ObjectFieldTemplateProps): JSX.Element {
  return <>{props.properties.map(property => property.content)}</>;
}

/** Which parameter a field is of, and which item of it. */
function placeOf(id: string): { name: string | undefined; index: number | null } {
  const [, name, item] = id.split(':');
  return { name, index: item === undefined ? null : Number(item) };
}

/** Whether the server has refused what is in a field. */
function isRefused(id: string, refusals: IContext['refusals']): boolean {
  const { name, index } = placeOf(id);
  const problems = (name && refusals[name]) || [];
  if (index === null) {
    return problems.length > 0;
  }
  // `at [2]: must be …` is about an item; what names none is about all.
  const places = problems.map(problem => /^at \[(\d+)\]/.exec(problem)?.[1]);
  return places.some(place => place === undefined || Number(place) === index);
}

/** Attributes by which an input is known and described. */
function described(id: string, context: unknown): React.AriaAttributes & { id: string } {
  const { name } = placeOf(id);
  return {
    id,
    'aria-invalid': isRefused(id, (context as IContext).refusals) || undefined,
    'aria-describedby': `nbexec:${name}__description nbexec:${name}__error`
  };
}

function BaseInputTemplate(props: WidgetProps): JSX.Element {
  const { id, value, options, placeholder, required, onChange, formContext } = props;
  const text = typeof value === 'string' ? value : writeAny(value ?? undefined);
  const take = (typed: string) => onChange(typed === '' ? options.emptyValue : typed);
  // What is no date would not be shown by an input for dates.
  if (options.inputType === 'date' && (!text || isDate(text))) {
    return (
      <input
        {...described(id, formContext)}
        className="jp-mod-styled"
        type="date"
        value={text}
        required={required}
        onChange={event => take(event.target.value)}
      />
    );
  }
  return (
    <Text
      {...described(id, formContext)}
      value={text}
      isLong={options.isLong === true}
      // An empty text is another value than none.
      placeholder={value === '' && options.emptyValue === null ? '""' : placeholder}
      required={required}
      onChange={take}
      trans={(formContext as IContext).trans}
    />
  );
}

function CheckboxWidget(props: WidgetProps): JSX.Element {
  const { id, value, onChange, formContext } = props;
  return (
    <input
      {...described(id, formContext)}
      className="jp-mod-styled"
      type="checkbox"
      ref={node => {
        if (node) {
          node.indeterminate = typeof value !== 'boolean';
        }
      }}
      checked={value === true}
      onChange={event => onChange(event.target.checked)}
    />
  );
}

function SelectWidget(props: WidgetProps): JSX.Element {
  const { id, value, options, onChange, formContext } = props;
  const offered = options.enumOptions ?? [];
  const chosen = offered.findIndex(option => equal(option.value, value));
  return (
    <div className="jp-select-wrapper">
      <select
        {...described(id, formContext)}
        className="jp-mod-styled"
        value={chosen}
        onChange={event => onChange(offered[Number(event.target.value)]?.value)}
      >
        {chosen < 0 && <option value={-1}>{writeAny(value)}</option>}
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
  props: FieldProps & { isNumber?: boolean; read: (text: string) => Json | undefined }
): JSX.Element {
  const { formData, uiSchema, idSchema, formContext, required, isNumber, read } = props;
  const [text, setText] = React.useState(writeAny(formData));
  const value = same(read(text), formData, uiSchema?.['ui:emptyValue'])
    ? text
    : shownValue(formData, uiSchema);
  const onChange = (typed: string) => {
    setText(typed);
    props.onChange(read(typed) ?? uiSchema?.['ui:emptyValue']);
  };
  const placeholder = uiSchema?.['ui:placeholder'];
  const given = { ...described(idSchema.$id, formContext), value, placeholder, required, spellCheck: false };
  return isNumber ? (
    <input
      {...given}
      className="jp-mod-styled"
      type="text"
      inputMode="decimal"
      onChange={event => onChange(event.target.value)}
    />
  ) : (
    <Text {...given} onChange={onChange} trans={(formContext as IContext).trans} />
  );
}

function shownValue(value: Json | undefined, uiSchema: UiSchema | undefined): string {
  return value !== undefined && value === uiSchema?.['ui:emptyValue'] ? '' : writeAny(value);
}

function same(read: Json | undefined, value: Json | undefined, empty: Json | undefined): boolean {
  return writeAny(read === undefined ? empty : read) === writeAny(value);
}

function NumberField(props: FieldProps): JSX.Element {
  return <TextOf {...props} read={readNumber} isNumber />;
}

function JsonField(props: FieldProps): JSX.Element {
  return <TextOf {...props} read={readAny} />;
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
