import type { IOutput } from '@jupyterlab/nbformat';

/** A value of JSON; integers that a number cannot hold are `bigint`. */
export type Json = null | boolean | number | bigint | string | Json[] | { [key: string]: Json };

/** The values of parameters, by name. */
export type Values = { [name: string]: Json };

/** As much of JSON Schema as the form looks at. */
export interface ISchema {
  [keyword: string]: unknown;
  type?: string | string[];
  title?: string;
  description?: string;
  default?: Json;
  enum?: Json[];
  format?: string;
  items?: ISchema;
  anyOf?: ISchema[];
  properties?: { [name: string]: ISchema };
  required?: string[];
  additionalProperties?: boolean | ISchema;
}

/** What `GET /api/nbexec/<path>` answers. */
export interface IDescription {
  path: string;
  kernel: { name: string | null; language: string | null; available: boolean };
  parameters: IParameter[];
  schema: ISchema;
  endpoints: IEndpoint[];
  last_modified: string | null;
  links: { run: string; runs: string; openapi: string };
}

export interface IParameter {
  name: string;
  type: string;
  default: Json;
  default_source?: string;
  required: boolean;
  description: string;
}

/** Cells of the notebook that can be called; what else the server says of them is not looked at. */
export interface IEndpoint {
  method: string;
  /** Below the notebook's own address; `:name` stands for a value. */
  path: string;
}

export type RunStatus = 'queued' | 'running' | 'succeeded' | 'failed' | 'cancelled';

/** A run, as the server tells it; `outputs` and `scraps` only where it is told in full. */
export interface IRun {
  id: string;
  path: string | null;
  status: RunStatus;
  created: string;
  started: string | null;
  ended: string | null;
  duration: number | null;
  parameters: Values;
  kernel: { name: string; id: string | null; source: string | null } | null;
  progress: IProgress;
  result: Json;
  result_type: string | null;
  truncated: boolean;
  error: IRunError | null;
  saved_as: string | null;
  warnings: string[];
  /** The name of who asked for it, where they have one. */
  user: string | null;
  outputs?: ICellOutput[];
  scraps?: { [name: string]: Json };
}

export interface IProgress {
  done: number;
  total: number;
  cell: number | null;
}

export interface IRunError {
  code: string;
  message: string;
  ename: string | null;
  evalue: string | null;
  traceback: string[];
  cell: number | null;
  cell_id: string | null;
}

/** Where in the stored notebook something comes from; both null for the cell with the parameters' values. */
export interface ICellReference {
  cell: number | null;
  cell_id: string | null;
}

export type ICellOutput = IOutput & ICellReference & { display_id?: string };

/** What happens in a run. */
export type RunEvent =
  | { id: number; type: 'status'; data: IRun }
  | {
      id: number;
      type: 'cell';
      data: ICellReference & { state: 'started' | 'ended'; execution_count: number | null };
    }
  | { id: number; type: 'output'; data: ICellOutput }
  | { id: number; type: 'clear'; data: ICellReference & { wait: boolean } }
  | { id: number; type: 'update'; data: IDisplayUpdate }
  | { id: number; type: 'end'; data: IRun };

export interface IDisplayUpdate extends ICellReference {
  display_id: string;
  data: IOutput['data'];
  metadata: IOutput['metadata'];
}

/** Seconds by phase of a run that has ended. */
export interface ITiming {
  queue?: number;
  kernel?: number;
  run?: number;
  total?: number;
}

/** What a run is asked for with. */
export interface IRunRequest {
  parameters: Values;
  timeout?: number;
  kernel_name?: string;
}

/** The settings of `schema/plugin.json`. */
export interface ISettings {
  timeout: number;
  saveBeforeRun: boolean;
  sendAllParameters: boolean;
  defaultSnippet: string;
  maxOutputs: number;
  historySize: number;
  notify: 'hidden' | 'always' | 'never';
  openIn: 'right' | 'tab';
  confirmCancel: boolean;
}

export const DEFAULT_SETTINGS: ISettings = {
  timeout: 600,
  saveBeforeRun: true,
  sendAllParameters: false,
  defaultSnippet: 'curl',
  maxOutputs: 50,
  historySize: 20,
  notify: 'hidden',
  openIn: 'right',
  confirmCancel: false
};

export namespace CommandIDs {
  export const open = 'nbexec:open';
  export const openSelected = 'nbexec:open-selected';
  export const openInTab = 'nbexec:open-in-tab';
  export const run = 'nbexec:run';
  export const cancel = 'nbexec:cancel';
  export const leave = 'nbexec:leave';
}
