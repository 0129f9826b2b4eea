import { Button, Group, SimpleGrid, Table, Text, TextInput } from '@mantine/core'
import { useQuery } from '@tanstack/react-query'
import { useState } from 'react'
import { useTranslation } from 'react-i18next'
import { Link, useSearchParams } from 'react-router'
import * as calls from '../api/calls'
import { keys } from '../api/keys'
import type { SlaFigures, SlaReport } from '../api/types'
import { useFormat } from '../i18n/useFormat'
import { Answer } from '../ui/feedback'
import { Facts, Page, Section } from '../ui/page'
import { SiteSelect } from '../ui/SiteSelect'
import { Rows } from '../ui/rows'
import { Exact } from '../ui/time'
import { useIncidentText } from './incidentText'

/** The month before this one, by the clock of the offices. */
const lastMonth = () => {
  const now = new Date(Date.now() + 7 * 3_600_000)
  return new Date(Date.UTC(now.getUTCFullYear(), now.getUTCMonth() - 1, 1)).toISOString().slice(0, 7)
}

/** What a carrier owes for an office's line: to be printed, or handed over as a table or signed. */
export function SlaPage() {
  const { t } = useTranslation()
  const [search, setSearch] = useSearchParams()
  const site = search.get('site') ?? ''
  const month = search.get('month') ?? lastMonth()
  const [text, setText] = useState(month)
  const query = useQuery({ queryKey: keys.sla(site, month), queryFn: () => calls.sla(site, month), enabled: site !== '' })
  const file = (format: string) => `/api/v1/sites/${encodeURIComponent(site)}/sla/export?month=${month}&format=${format}`
  return (
    <Page
      title={t('sla.title')}
      lead={t('sla.lead')}
      actions={
        site !== '' && (
          <>
            <Button component="a" href={file('json')} download>
              {t('sla.signed')}
            </Button>
            <Button component="a" href={file('csv')} download variant="default">
              {t('sla.table')}
            </Button>
            <Button variant="default" onClick={() => window.print()}>
              {t('sla.print')}
            </Button>
          </>
        )
      }
    >
      <form
        className="card no-print"
        style={{ padding: 'var(--mantine-spacing-lg)' }}
        onSubmit={(event) => {
          event.preventDefault()
          setSearch({ site, month: text })
        }}
      >
        <Group align="flex-end" gap="sm">
          <SiteSelect label={t('site.one')} value={site} onChange={(code) => setSearch({ site: code ?? '', month })} />
          <TextInput type="month" label={t('sla.month')} value={text} onChange={(e) => setText(e.currentTarget.value)} />
          <Button type="submit">{t('sla.show')}</Button>
        </Group>
      </form>
      {site !== '' && <Answer query={query}>{(report) => <Report report={report} />}</Answer>}
    </Page>
  )
}

function Report({ report: r }: { report: SlaReport }) {
  const { t } = useTranslation()
  const format = useFormat()
  const words = useIncidentText()
  const figures = (f: SlaFigures) => (
    <Facts
      rows={[
        [t('sla.availability'), `${format.number(f.availability, 3)} %`],
        [t('sla.outages'), format.number(f.outages)],
        [t('sla.down'), format.duration(f.down_s)],
        [t('sla.counted'), format.duration(f.counted_s)],
      ]}
    />
  )
  return (
    <>
      <Section title={`${r.site_name} · ${r.month}`}>
        <Facts
          rows={[
            [t('sla.carrier'), r.carrier],
            [t('sla.from'), <Exact key="f" at={r.from} />],
            [t('sla.until'), <Exact key="u" at={r.until} />],
            [t('sla.made'), <Exact key="m" at={r.made_at} />],
          ]}
        />
        {!r.complete && <Text size="sm">{t('sla.incomplete')}</Text>}
      </Section>
      <SimpleGrid cols={{ base: 1, md: 2 }}>
        <Section title={t('sla.aroundTheClock')}>{figures(r.around_the_clock)}</Section>
        <Section title={t('sla.officeHours')}>{figures(r.office_hours)}</Section>
      </SimpleGrid>
      <Section title={t('sla.outages')}>
        {r.outages.length === 0 ? (
          <Text size="sm">{t('sla.none')}</Text>
        ) : (
          <Rows label={t('sla.outages')} head={['begin', 'end', 'lasted', 'countedShort', 'officeShort', 'why'].map((h) => t(`sla.${h}`))}>
            {r.outages.map((o) => (
              <Table.Tr key={o.incident}>
                <Table.Td>
                  <Exact at={o.begin} />
                </Table.Td>
                <Table.Td>{o.end ? <Exact at={o.end} /> : t('sla.still')}</Table.Td>
                <Table.Td>{format.duration(o.seconds)}</Table.Td>
                <Table.Td>{format.duration(o.counted_s)}</Table.Td>
                <Table.Td>{format.duration(o.office_s)}</Table.Td>
                <Table.Td>
                  <Link className="link" to={`/incidents/${o.incident}`}>
                    {t(`incident.causes.${o.cause}`)}
                  </Link>
                  . {o.evidence.map((e) => words.sentence(e)).join(' ')} ({t('incident.confidence')}{' '}
                  {t(`incident.confidences.${o.confidence}`)})
                </Table.Td>
              </Table.Tr>
            ))}
          </Rows>
        )}
      </Section>
      {r.excluded.length > 0 && (
        <Section title={t('sla.excluded')}>
          {r.excluded.map((x) => (
            <Text size="sm" key={x.incident}>
              <Exact at={x.begin} /> – {x.end ? <Exact at={x.end} /> : t('sla.still')} · {t(`incident.causes.${x.cause}`)} ·{' '}
              {t(`sla.whys.${x.why}`)}
            </Text>
          ))}
        </Section>
      )}
      {r.works.length > 0 && (
        <Section title={t('sla.works')}>
          {r.works.map((w, i) => (
            <Text size="sm" key={i}>
              <Exact at={w.from} /> – <Exact at={w.until} /> · {w.reason}
            </Text>
          ))}
        </Section>
      )}
      <Text size="sm" className="quiet">
        {t('sla.check')}
      </Text>
    </>
  )
}
