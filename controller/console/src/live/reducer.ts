/** The kinds of rows the controller's event stream speaks of. */
export type Kind =
  | 'desktop'
  | 'pool'
  | 'host'
  | 'image'
  | 'endpoint'
  | 'session'
  | 'incident'
  | 'gateway'
  | 'diagnosis'
  | 'call'
  | 'enrolment'
  | 'update'

interface Row {
  id: string
}

/** One `change` event. */
export interface Change {
  kind: Kind
  rows: Row[]
  gone: string[]
}

interface Rows<T extends Row> {
  items: T[]
  total: number
  next?: string | null
}

/** What has arrived for one kind since the last flush; the newest word on an id wins. */
export interface Pending {
  rows: Map<string, Row>
  gone: Set<string>
}

export function parseChange(data: string): Change | undefined {
  let value: unknown
  try {
    value = JSON.parse(data)
  } catch {
    return undefined
  }
  const change = value as Partial<Change> | null
  if (!change || typeof change.kind !== 'string') return undefined
  return { kind: change.kind, rows: change.rows ?? [], gone: change.gone ?? [] }
}

export function collect(pending: Map<Kind, Pending>, change: Change): void {
  const known = pending.get(change.kind) ?? { rows: new Map<string, Row>(), gone: new Set<string>() }
  for (const row of change.rows) {
    known.rows.set(row.id, row)
    known.gone.delete(row.id)
  }
  for (const id of change.gone) {
    known.gone.add(id)
    known.rows.delete(id)
  }
  pending.set(change.kind, known)
}

/**
 * The list with the pending rows replaced, removed or appended. Order is kept, and untouched rows
 * stay the same objects, so a table redraws only what changed.
 */
export function applyToList<T extends Row>(list: Rows<T> | undefined, pending: Pending): Rows<T> | undefined {
  if (!list) return list
  const left = new Map(pending.rows)
  let removed = 0
  const items: T[] = []
  for (const item of list.items) {
    if (pending.gone.has(item.id)) {
      removed += 1
      continue
    }
    const fresh = left.get(item.id)
    if (fresh) left.delete(item.id)
    items.push(fresh ? ({ ...item, ...fresh } as T) : item)
  }
  for (const row of left.values()) items.push(row as T)
  return { ...list, items, total: list.total - removed + left.size }
}
