import type { QueryClient } from '@tanstack/react-query'
import { keys } from '../api/keys'
import { applyToList, collect, type Kind, parseChange, type Pending } from './reducer'

/** Long enough to fold a burst into one redraw, short enough to feel live. */
const FLUSH_MS = 250
/** How often a page asks for what it is told of anyway, should a change not have been told. */
export const SAFETY_MS = 60_000
/** Sums the server makes (overview, pool counts) are asked for again, but not for every event. */
const SUMS_MS = 1500

const LISTS: Record<Kind, string> = {
  desktop: 'desktops',
  pool: 'pools',
  host: 'hosts',
  image: 'images',
  endpoint: 'endpoints',
  session: 'sessions',
  incident: 'incidents',
  gateway: 'gateways',
  diagnosis: 'diagnoses',
  call: 'calls',
  enrolment: 'enrolments',
  update: 'updates',
}
/** Of these, as of releases, only the id is told; whoever shows them asks again. */
const HINTS = new Set<Kind>(['call', 'enrolment'])
/** What is shown of one of these is more than its row. */
const MORE_THAN_A_ROW = new Set<Kind>(['diagnosis', 'incident', ...HINTS])
/** One that changed, and the runbooks that are used for it. */
const parts = (kind: Kind, id: string) => [[kind, id], ...(kind === 'call' || kind === 'incident' ? [keys.runbookRuns(id)] : [])]

export type LinkState = 'connecting' | 'open' | 'lost'

/**
 * Opens the one event stream of this page and keeps the query cache in step with it.
 * Returns the function that closes it.
 */
export function follow(client: QueryClient, report: (state: LinkState) => void): () => void {
  const pending = new Map<Kind, Pending>()
  let flushTimer: ReturnType<typeof setTimeout> | undefined
  let sumsTimer: ReturnType<typeof setTimeout> | undefined
  let source: EventSource | undefined
  let retryTimer: ReturnType<typeof setTimeout> | undefined
  let attempt = 0
  let everOpen = false

  /** Kinds whose sums are out of date. */
  const stale = new Set<Kind>()

  const take = (kind: Kind, changes: Pending) => {
    client.setQueriesData({ queryKey: [LISTS[kind]] }, (old) =>
      applyToList(old as Parameters<typeof applyToList>[0], changes),
    )
    for (const [id, row] of changes.rows) {
      client.setQueryData([kind, id], (old: object | undefined) => (old ? { ...old, ...row } : old))
    }
  }

  const flush = () => {
    flushTimer = undefined
    for (const [kind, changes] of pending) {
      stale.add(kind)
      // All of it is sums, and changes with every computer that takes a release up.
      if (kind === 'update') continue
      if (HINTS.has(kind)) void client.invalidateQueries({ queryKey: [LISTS[kind]] })
      else take(kind, changes)
      if (!MORE_THAN_A_ROW.has(kind)) continue
      // After the rows were taken in: data that is put there counts as fresh.
      for (const id of [...changes.rows.keys(), ...changes.gone]) {
        for (const queryKey of parts(kind, id)) void client.invalidateQueries({ queryKey })
      }
    }
    pending.clear()
    sumsTimer ??= setTimeout(() => {
      sumsTimer = undefined
      void client.invalidateQueries({ queryKey: keys.overview })
      if (stale.has('incident')) void client.invalidateQueries({ queryKey: keys.siteHealth })
      if (stale.has('update')) {
        void client.invalidateQueries({ queryKey: keys.updates })
        void client.invalidateQueries({ queryKey: ['update'] })
      }
      if (stale.has('desktop')) {
        void client.invalidateQueries({ queryKey: keys.pools })
        void client.invalidateQueries({ queryKey: ['pool'] })
        void client.invalidateQueries({ queryKey: keys.hosts })
      }
      stale.clear()
    }, SUMS_MS)
  }

  const resync = () => {
    pending.clear()
    for (const list of Object.values(LISTS)) void client.invalidateQueries({ queryKey: [list] })
    for (const kind of Object.keys(LISTS)) void client.invalidateQueries({ queryKey: [kind] })
    void client.invalidateQueries({ queryKey: ['runbook-runs'] })
    void client.invalidateQueries({ queryKey: keys.overview })
  }

  const open = () => {
    report('connecting')
    source = new EventSource('/api/v1/events')
    source.addEventListener('open', () => {
      attempt = 0
      report('open')
      // A stream opened anew cannot replay what happened while it was away.
      if (everOpen) resync()
      everOpen = true
    })
    source.addEventListener('change', (event) => {
      const change = parseChange((event as MessageEvent<string>).data)
      if (!change || !(change.kind in LISTS)) return
      collect(pending, change)
      flushTimer ??= setTimeout(flush, FLUSH_MS)
    })
    source.addEventListener('resync', resync)
    source.addEventListener('error', () => {
      report('lost')
      // While CONNECTING the browser retries by itself; CLOSED (an HTTP error) is left to us.
      if (source?.readyState !== EventSource.CLOSED) return
      attempt += 1
      const wait = Math.min(30_000, 1000 * 2 ** attempt) * (0.5 + Math.random() / 2)
      retryTimer = setTimeout(open, wait)
    })
  }
  open()

  return () => {
    source?.close()
    clearTimeout(flushTimer)
    clearTimeout(sumsTimer)
    clearTimeout(retryTimer)
  }
}
