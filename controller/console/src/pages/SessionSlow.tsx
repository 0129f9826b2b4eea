import { Stack, Text, Title } from '@mantine/core'
import { useQuery } from '@tanstack/react-query'
import { useTranslation } from 'react-i18next'
import * as calls from '../api/calls'
import { keys } from '../api/keys'
import type { Session, SessionCourse } from '../api/types'
import { useFormat } from '../i18n/useFormat'
import { LineUse } from './SiteLine'

type Part = Session['experience']['segments'][number]
type Point = SessionCourse['points'][number]

/** The way in, in order; whatever else is measured is felt while working. */
const WAY = ['line', 'ticket', 'display', 'picture', 'sign_in']
/** A bar ends at the right edge at three times what is felt; the mark stands at what is felt. */
const FULL = 3
/** A part of the way that took next to nothing is still to be seen. */
const LEAST_PERCENT = 1.5

/** "Why is it slow for this officer", as one picture: the verdict, the way in, the work, and the last hour. */
export function SessionSlow({ session }: { session: Session }) {
  const { t } = useTranslation()
  const { segments, guilty } = session.experience
  const blamed = segments.find((part) => part.name === guilty)
  const way = segments.filter((part) => WAY.includes(part.name))
  const work = segments.filter((part) => !WAY.includes(part.name))
  return (
    <Stack gap="md">
      <div role="status" data-testid="guilty">
        <Text fw={650}>
          {blamed
            ? t(`session.slow.blame.${blamed.owner}`, { part: t(`session.slow.part.${blamed.name}`) })
            : t(segments.length ? 'session.slow.fine' : 'session.slow.nothing')}
        </Text>
        {blamed && <Text size="sm">{t(`session.slow.todo.${blamed.name}`)}</Text>}
      </div>
      {way.length > 0 && <Way parts={way} guilty={guilty} />}
      {work.length > 0 && (
        <section>
          <Title order={3} fz="sm">
            {t('session.slow.work')}
          </Title>
          <Parts parts={work} guilty={guilty} />
        </section>
      )}
      {segments.length > 0 && (
        <Text size="xs" className="quiet">
          {t('session.slow.legend')}
        </Text>
      )}
      <Course session={session} />
    </Stack>
  )
}

/** The way in as one bar, in proportion, with its parts below. The bar says nothing that the list does not. */
function Way({ parts, guilty }: { parts: Part[]; guilty: Session['experience']['guilty'] }) {
  const { t } = useTranslation()
  const value = useValue()
  const all = parts.reduce((sum, part) => sum + part.value, 0)
  return (
    <section>
      <Title order={3} fz="sm">
        {t('session.slow.way', { all: value({ value: all, unit: 'ms' }) })}
      </Title>
      <div className="way" aria-hidden="true">
        {parts.filter((part) => part.value > 0).map((part) => (
          <span
            key={part.name}
            data-part={part.name}
            data-guilty={part.name === guilty || undefined}
            style={{ flexGrow: all ? part.value / all : 1, flexBasis: `${LEAST_PERCENT}%` }}
          />
        ))}
      </div>
      <Parts parts={parts} guilty={guilty} keyed />
    </section>
  )
}

function Parts({ parts, guilty, keyed = false }: { parts: Part[]; guilty: Session['experience']['guilty']; keyed?: boolean }) {
  const { t } = useTranslation()
  const value = useValue()
  return (
    <ol className="segments">
      {parts.map((part) => (
        <li key={part.name} className="segment" data-guilty={part.name === guilty || undefined}>
          <span>
            {keyed && <i className="way-key" data-part={part.name} aria-hidden="true" />}
            {t(`session.slow.part.${part.name}`)}
          </span>
          <span className="segment-track" aria-hidden="true">
            <span
              className="segment-bar"
              style={{ width: `${Math.max(1, Math.min(1, part.value / (part.limit * FULL)) * 100)}%` }}
            />
            <span className="segment-mark" style={{ left: `${100 / FULL}%` }} />
          </span>
          <b>
            {part.name === guilty ? `⚠ ${value(part)}` : value(part)}
            <span className="for-readers">{t('session.slow.felt', { limit: value({ value: part.limit, unit: part.unit }) })}</span>
          </b>
        </li>
      ))}
    </ol>
  )
}

function useValue() {
  const format = useFormat()
  return (part: { value: number; unit: string }) => {
    if (part.unit === 'permille') return `${format.number(part.value / 10, 1)} %`
    return part.value < 10_000 ? `${format.number(part.value)} ms` : format.duration(part.value / 1000)
  }
}

const LINES: { name: string; of: (p: Point) => number | null | undefined; unit: string; digits?: number; felt?: number }[] = [
  { name: 'rtt', of: (p) => p.rtt_ms, unit: 'ms', felt: 150 },
  { name: 'lost', of: (p) => (p.lost_permille ?? undefined) && (p.lost_permille ?? 0) / 10, unit: '%', digits: 1, felt: 2 },
  { name: 'reply', of: (p) => p.reply_ms, unit: 'ms', felt: 400 },
  { name: 'pictures', of: (p) => (p.pictures_min === null || p.pictures_min === undefined ? undefined : p.pictures_min / 60), unit: '/s', digits: 1 },
  { name: 'kbit', of: (p) => p.kbit, unit: 'kbit/s' },
]

/** The last hour, line by line; resumes as dashed strokes across, stalls as ticks below. */
function Course({ session }: { session: Session }) {
  const { t } = useTranslation()
  const format = useFormat()
  const query = useQuery({
    queryKey: keys.course(session.id),
    queryFn: () => calls.course(session.id),
    refetchInterval: 15_000,
  })
  const course = query.data
  const points = course?.points ?? []
  const resumes = points.filter((point, n) => n > 0 && point.connection !== points[n - 1]?.connection)
  const stalls = points.reduce((sum, point) => sum + point.stalls, 0)
  return (
    <>
      {course?.line && (
        <section>
          <Title order={3} fz="sm">
            {t('session.slow.site')}
          </Title>
          <LineUse line={course.line} />
        </section>
      )}
      {points.length > 1 && (
        <section data-testid="course">
          <Title order={3} fz="sm">
            {t('session.slow.course', { from: format.clock(points[0]?.at), to: format.clock(points[points.length - 1]?.at) })}
          </Title>
          <div className="course">
            {LINES.map((line) => (
              <Spark key={line.name} line={line} points={points} />
            ))}
          </div>
          <Text size="xs" className="quiet" mt={6}>
            {t('session.slow.courseLegend', { resumes: format.number(resumes.length), stalls: format.number(stalls) })}
          </Text>
        </section>
      )}
    </>
  )
}

const W = 300
const H = 40

function Spark({ line, points }: { line: (typeof LINES)[number]; points: Point[] }) {
  const { t } = useTranslation()
  const format = useFormat()
  const from = Date.parse(points[0]?.at ?? '')
  const span = Math.max(1, Date.parse(points[points.length - 1]?.at ?? '') - from)
  const x = (point: Point) => ((Date.parse(point.at) - from) / span) * W
  const known = points.filter((point) => typeof line.of(point) === 'number')
  const values = known.map((point) => line.of(point) ?? 0)
  const most = Math.max(...values, 0)
  const top = Math.max(most, line.felt ?? 0, 1)
  const y = (value: number) => H - (value / top) * (H - 4)
  const say = (value: number | undefined) => (value === undefined ? '—' : `${format.number(value, line.digits ?? 0)} ${line.unit}`)
  const name = t(`session.slow.line.${line.name}`)
  const words = known.length
    ? t('session.slow.nowMost', { now: say(values[values.length - 1]), most: say(most) })
    : t('session.slow.unknown')
  return (
    <>
      <span>{name}</span>
      <svg viewBox={`0 0 ${W} ${H}`} preserveAspectRatio="none" role="img" aria-label={`${name}: ${words}`}>
        {line.felt !== undefined && <line className="course-felt" x1={0} x2={W} y1={y(line.felt)} y2={y(line.felt)} />}
        {points.map((point, n) =>
          n > 0 && point.connection !== points[n - 1]?.connection ? (
            <line key={`r${point.at}`} className="course-resume" x1={x(point)} x2={x(point)} y1={0} y2={H} />
          ) : null,
        )}
        {points.map((point) =>
          point.stalls > 0 ? <line key={`s${point.at}`} className="course-stall" x1={x(point)} x2={x(point)} y1={H - 6} y2={H} /> : null,
        )}
        <polyline className="course-line" points={known.map((point, n) => `${x(point)},${y(values[n] ?? 0)}`).join(' ')} />
      </svg>
      <b>{words}</b>
    </>
  )
}
