import { Anchor, Button, Group, Stack, Text, TextInput } from '@mantine/core'
import { useQueryClient } from '@tanstack/react-query'
import { type ReactNode, useState } from 'react'
import { useTranslation } from 'react-i18next'
import { Link } from 'react-router'
import * as calls from '../api/calls'
import { keys } from '../api/keys'
import type { Endpoint, EndpointCopy } from '../api/types'
import { useFormat } from '../i18n/useFormat'
import { Confirm } from '../ui/confirm'
import { Section } from '../ui/page'
import { Ago } from '../ui/time'

type Choice = { as: 'new' | 'same'; computer?: EndpointCopy }

/** Computers that show one identity, side by side, and what an operator says of them. */
export function EndpointCopies({ endpoint }: { endpoint: Endpoint }) {
  const { t } = useTranslation()
  const [choice, setChoice] = useState<Choice>()
  const { copies } = endpoint
  if (!copies) return null
  const open = copies.computers.filter((c) => !c.became)
  return (
    <Section title={t('copies.title')}>
      <Text size="sm">{t('copies.lead')}</Text>
      <Stack component="ul" gap={4} m={0} pl="lg">
        {copies.signals.map((signal) => (
          <li key={signal}>
            <Text size="sm" component="span">
              {t(`copies.signal.${signal}`, { defaultValue: signal })}
            </Text>
          </li>
        ))}
      </Stack>
      <SideBySide computers={copies.computers} onChoose={setChoice} />
      <Group>
        <Button variant="default" onClick={() => setChoice({ as: 'same' })}>
          {t('copies.same')}
        </Button>
        <Text size="sm" className="quiet">
          {t('copies.sameHint', { count: open.length })}
        </Text>
      </Group>
      <Decide endpoint={endpoint} choice={choice} onClose={() => setChoice(undefined)} />
    </Section>
  )
}

function SideBySide({ computers, onChoose }: { computers: EndpointCopy[]; onChoose: (choice: Choice) => void }) {
  const { t } = useTranslation()
  const format = useFormat()
  const text = (values: string[]) => values.join(', ') || '—'
  const facts: [string, (c: EndpointCopy) => string][] = [
    ['hostname', (c) => c.hostname || '—'],
    ['address', (c) => c.address || '—'],
    ['board', (c) => c.board ?? '—'],
    ['disks', (c) => text(c.disks)],
    ['macs', (c) => text(c.macs)],
    ['connects', (c) => format.number(c.connects)],
    ['boot', (c) => c.boot_id || '—'],
    ['agent', (c) => c.agent_version || '—'],
    ['reports', (c) => format.number(c.reports)],
  ]
  const row = (name: string, cells: (c: EndpointCopy) => ReactNode, differ = false) => (
    <tr key={name}>
      <th scope="row">
        {t(`copies.fact.${name}`)}
        {differ && <Text size="xs">{t('copies.differ')}</Text>}
      </th>
      {computers.map((c) => (
        <td key={c.copy} style={{ overflowWrap: 'anywhere', fontWeight: differ ? 650 : undefined }}>
          {cells(c)}
        </td>
      ))}
    </tr>
  )
  return (
    <div style={{ overflowX: 'auto' }} tabIndex={0} role="region" aria-label={t('copies.table')}>
      <table className="table">
        <thead>
          <tr>
            <th scope="col">{t('copies.evidence')}</th>
            {computers.map((c, i) => (
              <th scope="col" key={c.copy}>
                {t('copies.computer', { number: i + 1 })}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {facts.map(([name, of]) => row(name, of, new Set(computers.map(of)).size > 1))}
          {row('seen', (c) => <Ago at={c.last_seen_at} both />)}
          {row('decision', (c) =>
            c.became ? (
              <Anchor component={Link} to={`/endpoints/${c.became}`} className="link">
                {t('copies.became')}
              </Anchor>
            ) : (
              <Stack gap="xs" align="flex-start">
                <Button size="xs" onClick={() => onChoose({ as: 'new', computer: c })}>
                  {t('copies.new')}
                </Button>
                <Button size="xs" variant="default" onClick={() => onChoose({ as: 'same', computer: c })}>
                  {t('copies.original')}
                </Button>
              </Stack>
            ),
          )}
        </tbody>
      </table>
    </div>
  )
}

function Decide({ endpoint, choice, onClose }: { endpoint: Endpoint; choice?: Choice; onClose: () => void }) {
  const { t } = useTranslation()
  const client = useQueryClient()
  const [reason, setReason] = useState('')
  const fresh = choice?.as === 'new'
  const title = fresh ? t('copies.new') : t('copies.same')
  return (
    <Confirm
      opened={choice !== undefined}
      title={title}
      action={title}
      onClose={onClose}
      onConfirm={async () => {
        if (fresh && choice.computer) await calls.newMachine(endpoint.id, choice.computer.copy, reason)
        else await calls.sameMachine(endpoint.id, choice?.computer?.copy ?? null, reason)
        await client.invalidateQueries({ queryKey: keys.endpoint(endpoint.id) })
        await client.invalidateQueries({ queryKey: keys.endpoints })
      }}
    >
      <Stack gap="sm">
        {t(fresh ? 'copies.newAsk' : 'copies.sameAsk', { name: choice?.computer?.hostname ?? endpoint.name })}
        <TextInput label={t('endpoint.revokeReason')} value={reason} onChange={(event) => setReason(event.currentTarget.value)} />
      </Stack>
    </Confirm>
  )
}
