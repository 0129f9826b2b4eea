import { Anchor, Button, Group, Stack, Text, TextInput } from '@mantine/core'
import { useQuery, useQueryClient } from '@tanstack/react-query'
import { type ReactNode, useState } from 'react'
import { useTranslation } from 'react-i18next'
import { Link, useParams } from 'react-router'
import * as calls from '../api/calls'
import { keys } from '../api/keys'
import type { Enrolment } from '../api/types'
import { Confirm } from '../ui/confirm'
import { Answer } from '../ui/feedback'
import { Facts, Page, Section } from '../ui/page'
import { StatePill } from '../ui/state'
import { Ago, Exact } from '../ui/time'
import { grouped } from './callText'
import { enrolmentTones } from './EnrolmentsPage'

/** That it asked again is no event: there may be hundreds that wait. */
const HEARD_MS = 15_000

/** A computer that wants in: what it says of itself beside what was expected, and beside its neighbours. */
export function EnrolmentPage() {
  const { id = '' } = useParams()
  const { t } = useTranslation()
  const query = useQuery({ queryKey: keys.enrolment(id), queryFn: () => calls.enrolment(id), refetchInterval: HEARD_MS })
  return (
    <Page
      title={query.data?.name ?? t('nav.enrolments')}
      lead={
        <Anchor component={Link} to="/enrolments" className="link">
          ← {t('nav.enrolments')}
        </Anchor>
      }
      actions={query.data?.state === 'pending' && <Decisions enrolment={query.data} />}
    >
      <Answer query={query}>{(enrolment) => <Detail enrolment={enrolment} />}</Answer>
    </Page>
  )
}

function Detail({ enrolment }: { enrolment: Enrolment }) {
  const { t } = useTranslation()
  const { site } = enrolment
  return (
    <>
      <Group gap="lg" className="card" p="lg">
        <Text fz={34} fw={700} ff="monospace" data-testid="enrolment-code">
          {grouped(enrolment.code)}
        </Text>
        <StatePill group="enrolment.state" state={enrolment.state} tone={enrolmentTones[enrolment.state]} />
        <Text size="sm">{t(enrolment.state === 'pending' ? 'enrolment.compare' : `enrolment.said.${enrolment.state}`)}</Text>
      </Group>
      <SideBySide enrolment={enrolment} />
      <Section title={t('enrolment.question')}>
        <Facts
          rows={[
            [t('site.one'), `${site.name}${site.district ? `, ${site.district}` : ''} (${site.code})`],
            [t('enrolment.tokenBy'), enrolment.token_by],
            [t('token.note'), enrolment.note || '—'],
            [t('token.approval'), t(`token.approvalName.${enrolment.approval}`)],
            [t('copies.fact.address'), enrolment.address],
            [t('endpoint.os'), enrolment.os],
            [t('endpoint.agent'), enrolment.agent_version],
            [t('enrolment.asked'), <Exact key="a" at={enrolment.asked_at} />],
            [t('enrolment.heard'), <Ago key="h" at={enrolment.heard_at} both />],
            [t('token.expires'), <Exact key="e" at={enrolment.expires_at} />],
            ...(enrolment.decided_at
              ? ([
                  [t('enrolment.decidedBy'), enrolment.decided_by],
                  [t('enrolment.decidedAt'), <Exact key="d" at={enrolment.decided_at} />],
                  [t('enrolment.reason'), enrolment.reason || '—'],
                ] as [string, ReactNode][])
              : []),
          ]}
        />
      </Section>
      {enrolment.collected_at && (
        <Anchor component={Link} className="link" to={`/endpoints/${enrolment.id}`}>
          {t('enrolment.became')}
        </Anchor>
      )}
    </>
  )
}

interface Column {
  key: string
  head: ReactNode
  facts: Record<string, string>
  same: boolean
}

const FACTS = ['vendor', 'model', 'serial', 'board', 'disks', 'macs'] as const

/** Serial numbers as the controller compares them. */
const plain = (text: string) => text.toUpperCase().replace(/[^\p{L}\p{N}]/gu, '')

function SideBySide({ enrolment }: { enrolment: Enrolment }) {
  const { t } = useTranslation()
  const facts = (of: { hardware?: Enrolment['hardware']; board?: string | null; disks: string[]; macs: string[] }) => ({
    vendor: of.hardware?.vendor ?? '—',
    model: of.hardware?.model ?? '—',
    serial: of.hardware?.serial ?? '—',
    board: of.board ?? '—',
    disks: of.disks.join(', ') || '—',
    macs: of.macs.join(', ') || '—',
  })
  const beside: Column[] = (enrolment.beside ?? []).slice(0, 6).map((n) => ({
    key: n.id,
    head: (
      <Anchor component={Link} className="link" to={`/endpoints/${n.id}`}>
        {n.name}
      </Anchor>
    ),
    facts: facts(n),
    same: n.same_hardware,
  }))
  const all: Column[] = [{ key: 'new', head: t('enrolment.newcomer'), facts: facts(enrolment), same: false }, ...beside]
  const own = [enrolment.hardware?.serial ?? '', enrolment.board ?? '', ...enrolment.disks, ...enrolment.macs].map(plain)
  return (
    <Section title={t('copies.evidence')}>
      {beside.some((c) => c.same) && <Text fw={650}>{t('enrolment.same')}</Text>}
      {enrolment.expected.length > 0 && (
        <Text size="sm">
          {t('enrolment.expected', { serials: enrolment.expected.join(', ') })}{' '}
          {t(enrolment.expected.some((s) => own.includes(s)) ? 'enrolment.isExpected' : 'enrolment.notExpected')}
        </Text>
      )}
      <div style={{ overflowX: 'auto' }} tabIndex={0} role="region" aria-label={t('enrolment.table')}>
        <table className="table">
          <thead>
            <tr>
              <th scope="col">{t('copies.evidence')}</th>
              {all.map((c) => (
                <th scope="col" key={c.key}>
                  {c.head}
                  {c.same && <Text size="xs">{t('enrolment.sameShort')}</Text>}
                </th>
              ))}
            </tr>
          </thead>
          <tbody>
            {FACTS.map((name) => (
              <tr key={name}>
                <th scope="row">{t(name === 'board' || name === 'disks' || name === 'macs' ? `copies.fact.${name}` : `endpoint.${name}`)}</th>
                {all.map((c) => (
                  <td key={c.key} style={{ overflowWrap: 'anywhere' }}>
                    {c.facts[name]}
                  </td>
                ))}
              </tr>
            ))}
          </tbody>
        </table>
      </div>
    </Section>
  )
}

function Decisions({ enrolment }: { enrolment: Enrolment }) {
  const { t } = useTranslation()
  const client = useQueryClient()
  const [choice, setChoice] = useState<'approve' | 'refuse'>()
  const [reason, setReason] = useState('')
  const done = async () => {
    await client.invalidateQueries({ queryKey: keys.enrolment(enrolment.id) })
    await client.invalidateQueries({ queryKey: ['enrolments'] })
  }
  return (
    <Group>
      <Button onClick={() => setChoice('approve')}>{t('enrolment.approve')}</Button>
      <Button variant="default" c="light-dark(#9c1c1c, #ffa8a8)" onClick={() => setChoice('refuse')}>
        {t('enrolment.refuse')}
      </Button>
      <Confirm
        opened={choice === 'approve'}
        title={t('enrolment.approve')}
        action={t('enrolment.approve')}
        onClose={() => setChoice(undefined)}
        onConfirm={async () => {
          await calls.approveEnrolment(enrolment.id, enrolment.code)
          await done()
        }}
      >
        {t('enrolment.approveAsk', { name: enrolment.name, code: grouped(enrolment.code) })}
      </Confirm>
      <Confirm
        opened={choice === 'refuse'}
        danger
        title={t('enrolment.refuse')}
        action={t('enrolment.refuse')}
        onClose={() => setChoice(undefined)}
        onConfirm={async () => {
          await calls.refuseEnrolment(enrolment.id, reason)
          await done()
        }}
      >
        <Stack gap="sm">
          {t('enrolment.refuseAsk', { name: enrolment.name })}
          <TextInput label={t('endpoint.revokeReason')} value={reason} onChange={(event) => setReason(event.currentTarget.value)} />
        </Stack>
      </Confirm>
    </Group>
  )
}
