import type { components } from './schema'

type Schemas = components['schemas']

export type Me = Schemas['Me']
export type Role = Schemas['UserMe']['role']
export type Overview = Schemas['Overview']
export type Host = Schemas['Host']
export type Gateway = Schemas['Gateway']
export type Image = Schemas['Image']
export type Pool = Schemas['Pool']
export type NewPool = Schemas['NewPool']
export type NodeFiles = Schemas['NodeFiles']
export type HostChange = { enabled?: boolean; drain?: boolean; accel_policy?: Host['accel_policy'] }
export type Desktop = Schemas['Desktop']
export type DesktopState = Schemas['DesktopState']
export type SessionCourse = Schemas['SessionCourse']
export type Site = Schemas['Site']
export type SiteLine = Schemas['SiteLine']
export type SiteRef = Schemas['SiteRef']
export type SiteImport = Schemas['SiteImport']
export type User = Schemas['User']
export type UserCreate = Schemas['UserCreate']
// A field with a default is written as required by the generator; none is.
export type UserPatch = Partial<Schemas['UserPatch']>
export type Endpoint = Schemas['Endpoint']
export type EndpointCopy = Schemas['EndpointCopy']
export type Token = Schemas['Token']
export type TokenCreate = Schemas['TokenCreate']
export type TokenCreated = Schemas['TokenCreated']
export type Session = Schemas['Session']
export type Assist = Schemas['Assist']
export type Ticket = Schemas['Ticket']
export type Incident = Schemas['Incident']
export type IncidentDetail = Schemas['IncidentDetail']
export type Call = Schemas['Call']
export type CallDetail = Schemas['CallDetail']
export type CallsFound = Schemas['CallsFound']
export type SiteFacts = Schemas['SiteFacts']
export type CalendarDay = Schemas['CalendarDay']
export type NewService = Schemas['ProbedService']
/** The generator leaves out what only answers have. */
export type ProbedService = Schemas['ProbedService'] & { id: string }
export type RunbookInfo = Schemas['RunbookInfo']
export type RunbookRun = Schemas['RunbookRun']
export type NewAnswer = Schemas['NewAnswer']
export type CallStep = Schemas['CallStep']
export type Evidence = Schemas['Evidence']
export type Party = Schemas['Party']
export type HandOver = Schemas['HandOver']
export type NotifyRule = Schemas['NotifyRule']
export type NotifyRuleBody = Schemas['NotifyRuleBody']
export type Notification = Schemas['Notification']
export type AuditRow = Schemas['AuditRow']

export interface List<T> {
  items: T[]
  total: number
  next?: string | null
}
export type OpenPlace = Schemas['OpenPlace']
export type PoolPolicy = Schemas['PoolPolicy']
