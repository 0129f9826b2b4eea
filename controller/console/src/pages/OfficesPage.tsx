import { Button, Checkbox, Group, NumberInput, Select, Stack, Table, Text, TextInput } from '@mantine/core'
import { useQuery, useQueryClient } from '@tanstack/react-query'
import { type FormEvent, useState } from 'react'
import { useTranslation } from 'react-i18next'
import * as calls from '../api/calls'
import { keys } from '../api/keys'
import type { CalendarDay } from '../api/types'
import { Answer, ErrorPanel } from '../ui/feedback'
import { Page, Section } from '../ui/page'
import { Rows } from '../ui/rows'
import { SiteSelect } from '../ui/SiteSelect'
import { useOnce } from '../ui/once'
import { Exact } from '../ui/time'

/** What the rules must know besides what computers tell: carriers, announced work, holidays, and what is probed. */
export function OfficesPage({ operator }: { operator: boolean }) {
  const { t } = useTranslation()
  return (
    <Page title={t('offices.title')} lead={t('offices.lead')}>
      <SiteFacts />
      <Calendar operator={operator} />
      <Services operator={operator} />
    </Page>
  )
}

/** A form that says what is wrong with it, and is empty again when it was understood. */
function useSubmit(work: () => Promise<unknown>, queryKey: readonly unknown[], after?: () => void) {
  const client = useQueryClient()
  const [error, setError] = useState<unknown>()
  const [, once] = useOnce()
  const send = async () => {
    try {
      await work()
      setError(undefined)
      after?.()
    } catch (failure) {
      setError(failure)
    }
    await client.invalidateQueries({ queryKey })
  }
  const submit = (event?: FormEvent) => {
    event?.preventDefault()
    return once(send)
  }
  return { submit, panel: error === undefined ? null : <ErrorPanel error={error} /> }
}

function SiteFacts() {
  const { t } = useTranslation()
  const query = useQuery({ queryKey: keys.siteFacts, queryFn: calls.siteFacts })
  const [site, setSite] = useState('')
  const [carrier, setCarrier] = useState('')
  const [until, setUntil] = useState('')
  const [reason, setReason] = useState('')
  const choose = (code: string) => {
    const known = query.data?.items.find((f) => f.site === code)
    setSite(code)
    setCarrier(known?.carrier ?? '')
    setUntil('')
    setReason(known?.maintenance_reason ?? '')
  }
  const { submit, panel } = useSubmit(
    () =>
      calls.setSiteFacts(site, {
        carrier: carrier.trim() || null,
        // By the clock of the offices, wherever the console is looked at.
        maintenance_until: until ? new Date(`${until}:00+07:00`).toISOString() : null,
        maintenance_reason: reason,
      }),
    keys.siteFacts,
  )
  return (
    <Section title={t('offices.facts')}>
      <Answer query={query}>
        {(list) =>
          list.items.length === 0 ? (
            <Text size="sm">{t('offices.noFacts')}</Text>
          ) : (
            <Rows label={t('offices.facts')} head={[t('site.one'), t('sla.carrier'), t('offices.until'), t('offices.reason'), t('offices.change')]}>
              {list.items.map((f) => (
                <Table.Tr key={f.site}>
                  <Table.Td>{f.site}</Table.Td>
                  <Table.Td>{f.carrier ?? '—'}</Table.Td>
                  <Table.Td>{f.maintenance_until ? <Exact at={f.maintenance_until} /> : '—'}</Table.Td>
                  <Table.Td>{f.maintenance_reason || '—'}</Table.Td>
                  <Table.Td>
                    <Button size="xs" variant="default" onClick={() => choose(f.site)}>
                      {t('offices.changeOne', { site: f.site })}
                    </Button>
                  </Table.Td>
                </Table.Tr>
              ))}
            </Rows>
          )
        }
      </Answer>
      <form onSubmit={(event) => void submit(event)}>
        <Group align="flex-end" gap="sm">
          <SiteSelect label={t('site.one')} value={site} onChange={choose} />
          <TextInput label={t('sla.carrier')} maxLength={60} value={carrier} onChange={(e) => setCarrier(e.currentTarget.value)} />
          <TextInput type="datetime-local" label={t('offices.until')} value={until} onChange={(e) => setUntil(e.currentTarget.value)} />
          <TextInput label={t('offices.reason')} maxLength={200} value={reason} onChange={(e) => setReason(e.currentTarget.value)} />
          <Button type="submit" disabled={!site}>
            {t('offices.save')}
          </Button>
        </Group>
      </form>
      {panel}
    </Section>
  )
}

function Calendar({ operator }: { operator: boolean }) {
  const { t } = useTranslation()
  const query = useQuery({ queryKey: keys.calendar, queryFn: calls.calendar })
  const days = query.data?.items ?? []
  const [day, setDay] = useState('')
  const [name, setName] = useState('')
  const [working, setWorking] = useState(false)
  const set = (all: CalendarDay[]) => calls.setCalendar(all)
  const add = useSubmit(
    () => set([...days.filter((d) => d.day !== day), { day, name, working }].sort((a, b) => a.day.localeCompare(b.day))),
    keys.calendar,
    () => setName(''),
  )
  const client = useQueryClient()
  const remove = async (gone: string) => {
    await set(days.filter((d) => d.day !== gone))
    await client.invalidateQueries({ queryKey: keys.calendar })
  }
  return (
    <Section title={t('offices.calendar')}>
      <Answer query={query}>
        {(list) =>
          list.items.length === 0 ? (
            <Text size="sm">{t('offices.noDays')}</Text>
          ) : (
            <Rows label={t('offices.calendar')} head={[t('offices.day'), t('offices.kind'), t('offices.name'), ...(operator ? [t('offices.change')] : [])]}>
              {list.items.map((d) => (
                <Table.Tr key={d.day}>
                  <Table.Td>{d.day}</Table.Td>
                  <Table.Td>{t(d.working ? 'offices.working' : 'offices.holiday')}</Table.Td>
                  <Table.Td>{d.name || '—'}</Table.Td>
                  {operator && (
                    <Table.Td>
                      <Button size="xs" variant="default" onClick={() => void remove(d.day)}>
                        {t('offices.removeOne', { name: d.day })}
                      </Button>
                    </Table.Td>
                  )}
                </Table.Tr>
              ))}
            </Rows>
          )
        }
      </Answer>
      {operator && (
        <form onSubmit={(event) => void add.submit(event)}>
          <Group align="flex-end" gap="sm">
            <TextInput type="date" label={t('offices.day')} value={day} onChange={(e) => setDay(e.currentTarget.value)} />
            <TextInput label={t('offices.name')} maxLength={100} value={name} onChange={(e) => setName(e.currentTarget.value)} />
            <Checkbox label={t('offices.working')} checked={working} onChange={(e) => setWorking(e.currentTarget.checked)} mb={8} />
            <Button type="submit" disabled={!day}>
              {t('offices.addDay')}
            </Button>
          </Group>
        </form>
      )}
      {add.panel}
    </Section>
  )
}

const KINDS = ['https', 'http', 'tcp', 'dns'] as const

function Services({ operator }: { operator: boolean }) {
  const { t } = useTranslation()
  const query = useQuery({ queryKey: keys.services, queryFn: calls.services })
  const [name, setName] = useState('')
  const [kind, setKind] = useState<string>('https')
  const [host, setHost] = useState('')
  const [port, setPort] = useState<number | ''>('')
  const [path, setPath] = useState('')
  const add = useSubmit(
    () => calls.addService({ name, kind, host, ...(port === '' ? {} : { port }), ...(path ? { path } : {}) }),
    keys.services,
    () => {
      setName('')
      setHost('')
      setPath('')
    },
  )
  const client = useQueryClient()
  const remove = async (id: string) => {
    await calls.removeService(id)
    await client.invalidateQueries({ queryKey: keys.services })
  }
  return (
    <Section title={t('offices.services')}>
      <Text size="sm" className="quiet">
        {t('offices.servicesHint')}
      </Text>
      <Answer query={query}>
        {(list) =>
          list.items.length === 0 ? (
            <Text size="sm">{t('offices.noServices')}</Text>
          ) : (
            <Rows label={t('offices.services')} head={[t('offices.name'), t('offices.kind'), t('offices.host'), ...(operator ? [t('offices.change')] : [])]}>
              {list.items.map((s) => (
                <Table.Tr key={s.id}>
                  <Table.Td>{s.name}</Table.Td>
                  <Table.Td>{s.kind}</Table.Td>
                  <Table.Td>
                    {s.host}
                    {s.port ? `:${s.port}` : ''}
                    {s.path ?? ''}
                  </Table.Td>
                  {operator && (
                    <Table.Td>
                      <Button size="xs" variant="default" onClick={() => void remove(s.id)}>
                        {t('offices.removeOne', { name: s.name })}
                      </Button>
                    </Table.Td>
                  )}
                </Table.Tr>
              ))}
            </Rows>
          )
        }
      </Answer>
      {operator && (
        <form onSubmit={(event) => void add.submit(event)}>
          <Stack gap="sm">
            <Group align="flex-end" gap="sm">
              <TextInput label={t('offices.serviceName')} maxLength={60} value={name} onChange={(e) => setName(e.currentTarget.value)} />
              <Select label={t('offices.kind')} data={[...KINDS]} value={kind} onChange={(v) => v && setKind(v)} allowDeselect={false} w={110} />
              <TextInput label={t('offices.host')} value={host} onChange={(e) => setHost(e.currentTarget.value)} />
              <NumberInput label={t('offices.port')} min={1} max={65535} clampBehavior="none" allowDecimal={false} value={port} onChange={(v) => setPort(v === '' ? '' : Number(v))} w={110} />
              <TextInput label={t('offices.path')} value={path} onChange={(e) => setPath(e.currentTarget.value)} />
              <Button type="submit" disabled={!name || !host}>
                {t('offices.addService')}
              </Button>
            </Group>
          </Stack>
        </form>
      )}
      {add.panel}
    </Section>
  )
}
