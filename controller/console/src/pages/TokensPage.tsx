import { Alert, Button, Code, CopyButton, Group, Modal, NumberInput, Select, SimpleGrid, Stack, Text, Textarea, TextInput } from '@mantine/core'
import { useForm } from '@mantine/form'
import { useMutation, useQuery, useQueryClient } from '@tanstack/react-query'
import type { ColumnDef } from '@tanstack/react-table'
import { useMemo, useState } from 'react'
import { useTranslation } from 'react-i18next'
import * as calls from '../api/calls'
import { keys } from '../api/keys'
import { asProblem } from '../api/problem'
import type { Token, TokenCreated } from '../api/types'
import { useFormat } from '../i18n/useFormat'
import { fieldErrors } from '../ui/errors'
import { Answer, Empty, ErrorPanel } from '../ui/feedback'
import { Icon } from '../ui/icons'
import { Page } from '../ui/page'
import { SiteSelect } from '../ui/SiteSelect'
import { byText, DataTable, Two } from '../ui/table'
import { Exact } from '../ui/time'
import { TokenSheet } from './TokenSheet'

export function TokensPage() {
  const { t } = useTranslation()
  const format = useFormat()
  const [creating, setCreating] = useState(false)
  const [shown, setShown] = useState(false)
  const query = useQuery({ queryKey: keys.tokens, queryFn: calls.tokens })
  const columns = useMemo<ColumnDef<Token>[]>(
    () => [
      {
        id: 'site',
        header: t('site.one'),
        accessorFn: (row) => row.site.name,
        sortingFn: byText((row) => row.site.name),
        cell: ({ row }) => <Two main={row.original.site.name} sub={row.original.site.district} />,
      },
      {
        id: 'left',
        header: t('token.left'),
        accessorFn: (row) => row.uses_left,
        meta: { width: 130, numeric: true },
        cell: ({ row }) => `${format.number(row.original.uses_left)} / ${format.number(row.original.count)}`,
      },
      {
        id: 'expires',
        header: t('token.expires'),
        accessorFn: (row) => row.expires_at,
        meta: { width: 160 },
        cell: ({ row }) => <Exact at={row.original.expires_at} />,
      },
      {
        id: 'created',
        header: t('common.created'),
        accessorFn: (row) => row.created_at,
        meta: { width: 160, from: 'md' },
        cell: ({ row }) => <Exact at={row.original.created_at} />,
      },
      {
        id: 'approval',
        header: t('token.approval'),
        accessorFn: (row) => row.approval,
        meta: { width: 200, from: 'md' },
        cell: ({ row }) => <Text size="sm">{t(`token.approvalShort.${row.original.approval}`)}</Text>,
      },
      {
        id: 'note',
        header: t('token.note'),
        accessorFn: (row) => row.note ?? '',
        meta: { from: 'md' },
        cell: ({ row }) => row.original.note ?? '—',
      },
    ],
    [t, format],
  )
  return (
    <Page
      title={t('nav.tokens')}
      lead={t('token.lead')}
      actions={
        <Button leftSection={<Icon name="plus" />} onClick={() => {
            setShown(false)
            setCreating(true)
          }}>
          {t('token.create')}
        </Button>
      }
    >
      <Answer query={query}>
        {(list) =>
          list.items.length === 0 ? (
            <Empty title={t('token.none')}>{t('token.noneHint')}</Empty>
          ) : (
            <DataTable
              label={t('nav.tokens')}
              rows={list.items}
              columns={columns}
              rowId={(row) => row.id}
              initialSort={[{ id: 'created', desc: true }]}
            />
          )
        }
      </Answer>
      <Modal
        opened={creating}
        onClose={() => setCreating(false)}
        title={t('token.create')}
        // The token is shown once: neither a stray click beside it nor a stray key must throw it away.
        closeOnClickOutside={false}
        closeOnEscape={!shown}
        closeButtonProps={{ 'aria-label': t('common.close') }}
      >
        <TokenForm onShown={setShown} onClose={() => setCreating(false)} />
      </Modal>
    </Page>
  )
}

function TokenForm({ onShown, onClose }: { onShown: (shown: boolean) => void; onClose: () => void }) {
  const { t } = useTranslation()
  const client = useQueryClient()
  const form = useForm({
    initialValues: {
      site_code: '',
      count: 1 as number | '',
      ttl_hours: 72 as number | '',
      note: '',
      approval: 'auto' as Token['approval'],
      serials: '',
    },
    validate: {
      site_code: (value) => (value ? null : t('pool.needSite')),
      count: (value) => (Number(value) >= 1 && Number(value) <= 500 ? null : t('token.badCount')),
      ttl_hours: (value) => (Number(value) >= 1 && Number(value) <= 720 ? null : t('token.badHours')),
    },
  })
  const create = useMutation({
    mutationFn: calls.createToken,
    onSuccess: () => {
      onShown(true)
      void client.invalidateQueries({ queryKey: keys.tokens })
    },
    onError: (error) => form.setErrors(fieldErrors(t, asProblem(error))),
  })
  if (create.data) return <Created token={create.data} onClose={onClose} />
  return (
    <form
      noValidate
      onSubmit={form.onSubmit((values) =>
        create.mutate({
          site_code: values.site_code,
          count: Number(values.count),
          ttl_hours: Number(values.ttl_hours),
          note: values.note.trim(),
          approval: values.approval,
          serials: values.approval === 'serial' ? values.serials.split('\n') : [],
        }),
      )}
    >
      <Stack>
        <SiteSelect
          required
          value={form.values.site_code}
          onChange={(code) => form.setFieldValue('site_code', code)}
          error={form.errors.site_code}
        />
        <SimpleGrid cols={2}>
          <NumberInput label={t('token.count')} min={1} max={500} clampBehavior="none" allowDecimal={false} {...form.getInputProps('count')} />
          <NumberInput label={t('token.hours')} min={1} max={720} clampBehavior="none" allowDecimal={false} {...form.getInputProps('ttl_hours')} />
        </SimpleGrid>
        <Select
          label={t('token.approval')}
          allowDeselect={false}
          data={(['auto', 'serial', 'manual'] as const).map((value) => ({ value, label: t(`token.approvalName.${value}`) }))}
          {...form.getInputProps('approval')}
        />
        {form.values.approval === 'serial' && (
          <Textarea
            label={t('token.serials')}
            description={t('token.serialsHint')}
            autosize
            minRows={3}
            maxRows={8}
            {...form.getInputProps('serials')}
          />
        )}
        <TextInput label={t('token.note')} {...form.getInputProps('note')} />
        {create.isError && <ErrorPanel error={create.error} />}
        <Group justify="flex-end">
          <Button variant="default" onClick={onClose}>
            {t('common.cancel')}
          </Button>
          <Button type="submit" loading={create.isPending}>
            {t('token.create')}
          </Button>
        </Group>
      </Stack>
    </form>
  )
}

function Created({ token, onClose }: { token: TokenCreated; onClose: () => void }) {
  const { t } = useTranslation()
  return (
    <Stack>
      <Alert className="no-print" color="yellow" variant="outline" styles={{ message: { color: 'var(--mantine-color-text)' } }}>
        {t('token.once')}
      </Alert>
      <Code className="no-print" block fz="md" data-testid="token" style={{ overflowWrap: 'anywhere', whiteSpace: 'pre-wrap' }} tabIndex={0}>
        {token.token}
      </Code>
      <TokenSheet token={token} />
      <Group justify="flex-end">
        <Button variant="default" onClick={() => window.print()}>
          {t('token.print')}
        </Button>
        <CopyButton value={token.token}>
          {({ copied, copy }) => (
            <Button variant="default" leftSection={<Icon name="copy" />} onClick={copy}>
              {t(copied ? 'common.copied' : 'common.copy')}
            </Button>
          )}
        </CopyButton>
        <Button onClick={onClose}>{t('common.close')}</Button>
      </Group>
    </Stack>
  )
}
