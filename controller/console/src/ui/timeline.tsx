import { Group, Text } from '@mantine/core'
import { useTranslation } from 'react-i18next'
import { useFormat } from '../i18n/useFormat'

/** What a point must have. */
export interface Point {
  at: string
  gauges: Record<string, number | null>
  missing?: number | null
}

const SERIES = [
  { gauge: 'gateway_ms', color: 'var(--mantine-color-teal-6)' },
  { gauge: 'controller_ms', color: 'var(--mantine-color-blue-6)' },
] as const
const WIDTH = 720
const HEIGHT = 120

/** The values of one gauge as lines; a gap in the reports is a gap in the line. */
export function lines(points: Point[], gauge: string, from: number, to: number, top: number): string[] {
  const out: string[] = []
  let line: string[] = []
  let last = 0
  const end = () => {
    if (line.length > 0) out.push(line.join(' '))
    line = []
  }
  for (const p of points) {
    const at = new Date(p.at).getTime()
    // Keyframes come every quarter of an hour at the latest: longer silence is no line.
    if (p.missing || (last > 0 && at - last > 20 * 60_000)) end()
    last = at
    const value = p.gauges[gauge]
    if (value === undefined) continue
    if (value === null) {
      end()
      continue
    }
    const x = ((at - from) / (to - from)) * WIDTH
    const y = HEIGHT - (Math.min(value, top) / top) * HEIGHT
    // A gauge stays where it was until it is told anew.
    const before = line.at(-1)?.split(',')[1]
    if (before !== undefined) line.push(`${x.toFixed(1)},${before}`)
    line.push(`${x.toFixed(1)},${y.toFixed(1)}`)
  }
  end()
  return out
}

/** How the line to the router and to the data centre did over the last hours. */
export function Timeline({ points, hours }: { points: Point[]; hours: number }) {
  const { t } = useTranslation()
  const format = useFormat()
  const to = Date.now()
  const from = to - hours * 3_600_000
  const values = points.flatMap((p) => SERIES.map((s) => p.gauges[s.gauge])).filter((v): v is number => typeof v === 'number')
  const top = Math.max(20, ...values)
  return (
    <figure style={{ margin: 0 }}>
      <svg viewBox={`0 0 ${WIDTH} ${HEIGHT}`} width="100%" height={HEIGHT} preserveAspectRatio="none" role="img" aria-label={t('health.lineOf', { hours })}>
        {[0.25, 0.5, 0.75].map((y) => (
          <line key={y} x1={0} x2={WIDTH} y1={y * HEIGHT} y2={y * HEIGHT} stroke="currentColor" strokeOpacity={0.12} />
        ))}
        {SERIES.flatMap(({ gauge, color }) =>
          lines(points, gauge, from, to, top).map((at, i) => (
            <polyline key={`${gauge}${i}`} points={at} fill="none" stroke={color} strokeWidth={1.5} vectorEffect="non-scaling-stroke" />
          )),
        )}
      </svg>
      <Group component="figcaption" gap="lg">
        {SERIES.map(({ gauge, color }) => (
          <Text key={gauge} size="xs">
            <span style={{ color }}>■</span> {t(`health.gauge.${gauge}`)}
          </Text>
        ))}
        <Text size="xs" c="dimmed">
          {t('health.scale', { hours, ms: format.number(top, 0) })}
        </Text>
      </Group>
    </figure>
  )
}
