import { api, body, postText } from './client'
import type { CallStep, CalendarDay, HandOver, HostChange, List, NewAnswer, NewPool, NewService, NotifyRuleBody, PoolPolicy, ProbedService, SiteFacts, SiteImport, TokenCreate, UserCreate, UserPatch } from './types'

// The controller's own ceiling for one page; live rows then keep the list whole.
const ALL = { limit: 5000 }

export const me = () => body(api.GET('/api/v1/me'))
export const setLanguage = (language: 'vi' | 'en') => body(api.PATCH('/api/v1/me', { body: { language } }))
export const login = (username: string, password: string) =>
  body(api.POST('/api/v1/login', { body: { username, password } }))
export const support = () => body(api.GET('/api/v1/support'))
export const logout = () => body(api.POST('/api/v1/logout'))

export const overview = () => body(api.GET('/api/v1/overview'))
export const hosts = () => body(api.GET('/api/v1/hosts'))
export const setHost = (id: string, change: HostChange) =>
  body(api.PATCH('/api/v1/hosts/{id}', { params: { path: { id } }, body: change }))
export const createHost = (name: string, uri: string) =>
  body(api.POST('/api/v1/hosts', { body: { name, uri, accel_policy: 'auto' } }))
export const removeHost = (id: string) => body(api.DELETE('/api/v1/hosts/{id}', { params: { path: { id } } }))
export const issueNode = (name: string, names: string[]) => body(api.POST('/api/v1/hosts/nodes', { body: { name, names } }))
export const gateways = () => body(api.GET('/api/v1/gateways'))
export const drainGateway = (id: string, draining: boolean) => {
  const params = { path: { id } }
  return draining
    ? body(api.POST('/api/v1/gateways/{id}/drain', { params }))
    : body(api.POST('/api/v1/gateways/{id}/undrain', { params }))
}
export const updates = () => body(api.GET('/api/v1/updates'))
export const update = (id: string) => body(api.GET('/api/v1/updates/{id}', { params: { path: { id } } }))
export const wishUpdate = (id: string, wish: 'pause' | 'resume' | 'abort') =>
  body(api.POST(`/api/v1/updates/{id}/${wish}`, { params: { path: { id } }, body: { reason: '' } }))
export const images = () => body(api.GET('/api/v1/images'))

export const pools = () => body(api.GET('/api/v1/pools'))
export const pool = (id: string) => body(api.GET('/api/v1/pools/{id}', { params: { path: { id } } }))
export const createPool = (pool: NewPool) => body(api.POST('/api/v1/pools', { body: pool }))
export const resizePool = (id: string, size: number) =>
  body(api.PATCH('/api/v1/pools/{id}', { params: { path: { id } }, body: { size } }))
export const deletePool = (id: string, force: boolean) =>
  body(api.DELETE('/api/v1/pools/{id}', { params: { path: { id }, query: force ? { force } : {} } }))

export const desktops = () => body(api.GET('/api/v1/desktops', { params: { query: ALL } }))
export const desktop = (id: string) => body(api.GET('/api/v1/desktops/{id}', { params: { path: { id } } }))

export type DesktopVerb = 'start' | 'stop' | 'force_stop' | 'reset' | 'rebuild'

export function actOnDesktop(id: string, verb: DesktopVerb): Promise<unknown> {
  const params = { path: { id } }
  switch (verb) {
    case 'start':
      return body(api.POST('/api/v1/desktops/{id}/start', { params }))
    case 'stop':
      return body(api.POST('/api/v1/desktops/{id}/stop', { params, body: {} }))
    case 'force_stop':
      return body(api.POST('/api/v1/desktops/{id}/stop', { params, body: { force: true } }))
    case 'reset':
      return body(api.POST('/api/v1/desktops/{id}/reset', { params }))
    case 'rebuild':
      return body(api.POST('/api/v1/desktops/{id}/rebuild', { params }))
  }
}

export const screenshotUrl = (id: string, stamp: number) => `/api/v1/desktops/${id}/screenshot?t=${stamp}`

export const sites = (q: string, level: string, limit = 1000) =>
  body(
    api.GET('/api/v1/sites', {
      params: {
        query: {
          ...(q ? { q } : {}),
          ...(level ? { level: level as 'commune' } : {}),
          limit,
        },
      },
    }),
  )
export const course = (id: string) =>
  body(api.GET('/api/v1/sessions/{id}/course', { params: { path: { id } } }))
export const setSiteLine = (code: string, down_kbit: number | null, metered: boolean) =>
  body(api.PUT('/api/v1/sites/{code}/line', { params: { path: { code } }, body: { down_kbit, metered } }))
export const importSites = (csv: Blob, dryRun: boolean) =>
  postText<SiteImport>(`/api/v1/sites/import${dryRun ? '?dry_run=true' : ''}`, csv)

export const users = () => body(api.GET('/api/v1/users', { params: { query: ALL } }))
export const createUser = (user: UserCreate) => body(api.POST('/api/v1/users', { body: user }))
export const changeUser = (id: string, change: UserPatch) =>
  body(api.PATCH('/api/v1/users/{id}', { params: { path: { id } }, body: change as Required<UserPatch> }))

export const endpoints = () => body(api.GET('/api/v1/endpoints', { params: { query: ALL } }))
export const endpoint = (id: string) => body(api.GET('/api/v1/endpoints/{id}', { params: { path: { id } } }))
export const revokeEndpoint = (id: string, reason: string) =>
  body(api.POST('/api/v1/endpoints/{id}/revoke', { params: { path: { id } }, body: { reason } }))
export const newMachine = (id: string, copy: string, reason: string) =>
  body(api.POST('/api/v1/endpoints/{id}/new-machine', { params: { path: { id } }, body: { copy, reason } }))
export const sameMachine = (id: string, copy: string | null, reason: string) =>
  body(api.POST('/api/v1/endpoints/{id}/same-machine', { params: { path: { id } }, body: { copy, reason } }))
export const endpointHealth = (id: string) =>
  body(api.GET('/api/v1/endpoints/{id}/health', { params: { path: { id } } }))
export const endpointSamples = (id: string, from: string) =>
  body(api.GET('/api/v1/endpoints/{id}/samples', { params: { path: { id }, query: { from } } }))
export const lookAtEndpoint = (id: string, worth_it: boolean) =>
  body(api.POST('/api/v1/endpoints/{id}/live', { params: { path: { id }, query: { worth_it } } }))
export const setEndpointMetered = (id: string, metered: boolean | null) =>
  body(api.PUT('/api/v1/endpoints/{id}/metered', { params: { path: { id } }, body: { metered } }))
export const diagnosisCatalogue = () => body(api.GET('/api/v1/diagnosis-catalogue'))
export const diagnoses = (endpoint: string) => body(api.GET('/api/v1/diagnoses', { params: { query: { endpoint } } }))
export const diagnosesWaiting = () => body(api.GET('/api/v1/diagnoses', { params: { query: { waiting: true } } }))
export const diagnosis = (id: string) => body(api.GET('/api/v1/diagnoses/{id}', { params: { path: { id } } }))
export const askDiagnosis = (id: string, action: string, values: Record<string, string | number>, reason: string) =>
  body(api.POST('/api/v1/endpoints/{id}/diagnoses', { params: { path: { id } }, body: { action, arguments: values, reason } }))
export const approveDiagnosis = (id: string) =>
  body(api.POST('/api/v1/diagnoses/{id}/approve', { params: { path: { id } } }))
export const denyDiagnosis = (id: string) => body(api.POST('/api/v1/diagnoses/{id}/deny', { params: { path: { id } } }))
export const cancelDiagnosis = (id: string) => body(api.POST('/api/v1/diagnoses/{id}/cancel', { params: { path: { id } } }))
export const tokens = () => body(api.GET('/api/v1/endpoint-tokens'))
export const enrolments = (decided: boolean) => body(api.GET('/api/v1/enrolments', { params: { query: { decided } } }))
export const enrolment = (id: string) => body(api.GET('/api/v1/enrolments/{id}', { params: { path: { id } } }))
export const approveEnrolment = (id: string, code: string) =>
  body(api.POST('/api/v1/enrolments/{id}/approve', { params: { path: { id } }, body: { code } }))
export const refuseEnrolment = (id: string, reason: string) =>
  body(api.POST('/api/v1/enrolments/{id}/refuse', { params: { path: { id } }, body: { reason } }))
export const createToken = (token: TokenCreate) => body(api.POST('/api/v1/endpoint-tokens', { body: token }))

export const connect = (takeOver = false) => body(api.POST('/api/v1/connect', { body: { take_over: takeOver } }))
export const sessions = () => body(api.GET('/api/v1/sessions', { params: { query: ALL } }))
export const session = (id: string) => body(api.GET('/api/v1/sessions/{id}', { params: { path: { id } } }))
export const ticket = (id: string) => body(api.POST('/api/v1/sessions/{id}/ticket', { params: { path: { id } } }))
export const endSession = (id: string, reason?: string) =>
  body(api.DELETE('/api/v1/sessions/{id}', { params: { path: { id }, query: reason ? { reason } : {} } }))
/** The officer says that they are still there. */
export const present = (id: string) =>
  body(api.POST('/api/v1/sessions/{id}/present', { params: { path: { id } } }))
export const assists = (id: string) => body(api.GET('/api/v1/sessions/{id}/assists', { params: { path: { id } } }))
export const askAssist = (id: string, reason: string) =>
  body(api.POST('/api/v1/sessions/{id}/assists', { params: { path: { id } }, body: { reason } }))
export const answerAssist = (id: string, assist: string, question: 'watch' | 'control', allow: boolean) =>
  body(api.POST('/api/v1/sessions/{id}/assists/answer', { params: { path: { id } }, body: { assist, question, allow } }))
export const askControl = (id: string) =>
  body(api.POST('/api/v1/sessions/{id}/assists/control', { params: { path: { id } } }))
export const assistTicket = (id: string) =>
  body(api.POST('/api/v1/sessions/{id}/assists/ticket', { params: { path: { id } } }))
/** Stops whoever watches, or asks to. */
export const endAssist = (id: string) =>
  body(api.DELETE('/api/v1/sessions/{id}/assists', { params: { path: { id } } }))
export const setPoolPolicy = (id: string, policy: PoolPolicy) =>
  body(api.PUT('/api/v1/pools/{id}/policy', { params: { path: { id } }, body: policy }))

export const incidents = () => body(api.GET('/api/v1/incidents', { params: { query: ALL } }))
export const incident = (id: string) => body(api.GET('/api/v1/incidents/{id}', { params: { path: { id } } }))
export const siteHealth = () => body(api.GET('/api/v1/incidents/by-site'))
export const acknowledgeIncident = (id: string) =>
  body(api.POST('/api/v1/incidents/{id}/acknowledge', { params: { path: { id } } }))
export const noteIncident = (id: string, text: string) =>
  body(api.POST('/api/v1/incidents/{id}/notes', { params: { path: { id } }, body: { text } }))
export const handOverIncident = (id: string, to: HandOver) =>
  body(api.POST('/api/v1/incidents/{id}/hand-over', { params: { path: { id } }, body: to }))

export const supportCalls = (which: { over?: boolean | undefined; incident?: string; endpoint?: string }) => {
  const { over, ...rest } = which
  return body(api.GET('/api/v1/calls', { params: { query: { ...ALL, ...rest, ...(over === undefined ? {} : { over }) } } }))
}
export const supportCall = (id: string) => body(api.GET('/api/v1/calls/{id}', { params: { path: { id } } }))
export const findCall = (code: string) => body(api.GET('/api/v1/calls/find', { params: { query: { code } } }))
export const expectCall = (endpoint: string, code: string) => body(api.POST('/api/v1/calls', { body: { endpoint, code } }))
export const stepCall = (id: string, step: CallStep) =>
  body(api.POST('/api/v1/calls/{id}/step', { params: { path: { id } }, body: step }))
export const attachCall = (id: string, incident: string | null) =>
  body(api.PUT('/api/v1/calls/{id}/incident', { params: { path: { id } }, body: { incident } }))
export const noteCall = (id: string, text: string) =>
  body(api.POST('/api/v1/calls/{id}/notes', { params: { path: { id } }, body: { text } }))

export const timeTravel = (of: { site?: string; endpoint?: string; incident?: string; at?: string }) =>
  body(api.GET('/api/v1/time-travel', { params: { query: of } }))
export const sla = (code: string, month: string) =>
  body(api.GET('/api/v1/sites/{code}/sla', { params: { path: { code }, query: { month } } }))

export const siteFacts = () => body(api.GET('/api/v1/site-facts'))
export const setSiteFacts = (code: string, facts: SiteFacts) =>
  body(api.PUT('/api/v1/site-facts/{code}', { params: { path: { code } }, body: facts }))
export const calendar = () => body(api.GET('/api/v1/calendar'))
export const setCalendar = (days: CalendarDay[]) => body(api.PUT('/api/v1/calendar', { body: days }))
export const services = () => body(api.GET('/api/v1/probes')) as Promise<List<ProbedService>>
export const addService = (service: NewService) => body(api.POST('/api/v1/probes', { body: service }))
export const removeService = (id: string) => body(api.DELETE('/api/v1/probes/{id}', { params: { path: { id } } }))

export const runbooks = () => body(api.GET('/api/v1/runbooks'))
export const runbookRuns = (of: { incident: string } | { call: string }) =>
  body(api.GET('/api/v1/runbook-runs', { params: { query: of } }))
export const startRunbook = (runbook: string, of: { incident: string } | { call: string }) =>
  body(api.POST('/api/v1/runbook-runs', { body: { runbook, ...of } }))
export const answerRunbook = (id: string, answer: NewAnswer) =>
  body(api.POST('/api/v1/runbook-runs/{id}/answers', { params: { path: { id } }, body: answer }))
export const leaveRunbook = (id: string) => body(api.POST('/api/v1/runbook-runs/{id}/leave', { params: { path: { id } } }))

export const notifyRules = () => body(api.GET('/api/v1/notify-rules'))
export const notifyLog = () => body(api.GET('/api/v1/notify-log'))
export const createNotifyRule = (rule: NotifyRuleBody) => body(api.POST('/api/v1/notify-rules', { body: rule }))
export const changeNotifyRule = (id: string, rule: NotifyRuleBody) =>
  body(api.PUT('/api/v1/notify-rules/{id}', { params: { path: { id } }, body: rule }))
export const dropNotifyRule = (id: string) => body(api.DELETE('/api/v1/notify-rules/{id}', { params: { path: { id } } }))
export const testNotifyRule = (id: string) =>
  body(api.POST('/api/v1/notify-rules/{id}/test', { params: { path: { id } } }))

export const audit = (q: string, cursor?: string) =>
  body(
    api.GET('/api/v1/audit', {
      params: { query: { limit: 100, ...(q ? { q } : {}), ...(cursor ? { cursor: Number(cursor) } : {}) } },
    }),
  )
