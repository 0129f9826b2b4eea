import { Anchor, Button, FileInput, Group, Modal, SegmentedControl, Stack, Text } from '@mantine/core'
import { useDebouncedValue } from '@mantine/hooks'
import { keepPreviousData, useQuery, useQueryClient } from '@tanstack/react-query'
import type { ColumnDef } from '@tanstack/react-table'
import { useMemo, useState } from 'react'
import { useTranslation } from 'react-i18next'
import * as calls from '../api/calls'
import { keys } from '../api/keys'
import type { Site, SiteImport } from '../api/types'
import { useMe } from '../app/session'
import { useFormat } from '../i18n/useFormat'
import { Answer, Empty, ErrorPanel } from '../ui/feedback'
import { Icon } from '../ui/icons'
import { Facts, Page } from '../ui/page'
import { SearchBox } from '../ui/search'
import { byText, DataTable, Two } from '../ui/table'
import { SiteLineModal, useRate } from './SiteLine'

export function SitesPage() {
  const { t } = useTranslation()
  const format = useFormat()
  const operator = useMe().user.role === 'operator'
  const [text, setText] = useState('')
  const [level, setLevel] = useState('commune')
  const [importing, setImporting] = useState(false)
  const [chosen, setChosen] = useState<string>()
  const rate = useRate()
  const [q] = useDebouncedValue(text.trim(), 200)
  const query = useQuery({
    queryKey: keys.sites(q, level),
    queryFn: () => calls.sites(q, level),
    placeholderData: keepPreviousData,
  })
  const columns = useMemo<ColumnDef<Site>[]>(
    () => [
      {
        id: 'name',
        header: t('site.name'),
        accessorFn: (row) => row.short_name ?? row.name,
        sortingFn: byText((row) => row.short_name ?? row.name),
        cell: ({ row: { original: site } }) => (
          <Two
            main={
              <Anchor component="button" type="button" onClick={() => setChosen(site.code)}>
                {site.name}
              </Anchor>
            }
            sub={
              <>
                <span className="narrow-only">{site.district?.name}</span> {site.alt_name}
              </>
            }
          />
        ),
      },
      {
        id: 'parent',
        header: t(level === 'commune' ? 'site.district' : 'site.parent'),
        accessorFn: (row) => row.district?.name ?? '',
        sortingFn: byText((row) => row.district?.name ?? row.province?.name),
        meta: { from: 'sm' },
        cell: ({ row }) => row.original.district?.name ?? row.original.province?.name ?? '—',
      },
      { id: 'code', header: t('site.code'), accessorFn: (row) => row.code, meta: { width: 100 } },
      {
        id: 'phase',
        header: t('site.phase'),
        accessorFn: (row) => row.phase ?? '',
        meta: { width: 130, from: 'sm' },
        cell: ({ row }) =>
          row.original.phase ? t(`site.phaseName.${row.original.phase}`, { defaultValue: row.original.phase }) : '—',
      },
      {
        id: 'line',
        header: t('site.line.down'),
        accessorFn: (row) => row.line.down_kbit ?? -1,
        meta: { width: 190, from: 'md' },
        cell: ({ row: { original: site } }) => (
          <Two
            main={rate(site.line.down_kbit)}
            sub={site.line.sessions > 0 ? t('site.line.use', { used: rate(site.line.used_kbit), count: site.line.sessions }) : undefined}
          />
        ),
      },
      {
        id: 'endpoints',
        header: t('nav.endpoints'),
        accessorFn: (row) => row.endpoints ?? 0,
        meta: { width: 150, numeric: true, from: 'md' },
        cell: ({ row }) => format.number(row.original.endpoints),
      },
      {
        id: 'pools',
        header: t('nav.pools'),
        accessorFn: (row) => row.pools ?? 0,
        meta: { width: 170, numeric: true, from: 'md' },
        cell: ({ row }) => format.number(row.original.pools),
      },
    ],
    [t, format, level, rate],
  )
  const open = query.data?.items.find((site) => site.code === chosen)
  return (
    <Page
      title={t('nav.sites')}
      lead={t('site.lead')}
      actions={
        operator && (
          <Button variant="default" leftSection={<Icon name="upload" />} onClick={() => setImporting(true)}>
            {t('site.import')}
          </Button>
        )
      }
    >
      <Group>
        <SearchBox value={text} onChange={setText} placeholder={t('site.search')} />
        <SegmentedControl
          aria-label={t('site.level')}
          value={level}
          onChange={setLevel}
          data={['commune', 'district'].map((value) => ({ value, label: t(`site.levelName.${value}`) }))}
        />
      </Group>
      <Answer query={query} rows={10}>
        {(list) =>
          list.items.length === 0 && !q ? (
            <Empty title={t('site.none')}>{operator && t('site.noneHint')}</Empty>
          ) : (
            <>
              <Text size="sm" className="quiet" role="status">
                {t('common.shownOf', { shown: format.number(list.items.length), total: format.number(list.total) })}
              </Text>
              <DataTable label={t('nav.sites')} rows={list.items} columns={columns} rowId={(row) => row.code} />
            </>
          )
        }
      </Answer>
      {open && <SiteLineModal site={open} operator={operator} onClose={() => setChosen(undefined)} />}
      <Modal
        opened={importing}
        onClose={() => setImporting(false)}
        title={t('site.import')}
        closeButtonProps={{ 'aria-label': t('common.close') }}
      >
        <Import onClose={() => setImporting(false)} />
      </Modal>
    </Page>
  )
}

/** Two steps on purpose: what an import would do is shown before it is done. */
function Import({ onClose }: { onClose: () => void }) {
  const { t } = useTranslation()
  const format = useFormat()
  const client = useQueryClient()
  const [file, setFile] = useState<File | null>(null)
  const [tried, setTried] = useState<SiteImport>()
  const [made, setMade] = useState<SiteImport>()
  const [error, setError] = useState<unknown>()
  const [busy, setBusy] = useState(false)
  const run = async (dryRun: boolean) => {
    if (!file) return
    setBusy(true)
    setError(undefined)
    try {
      const result = await calls.importSites(file, dryRun)
      if (dryRun) setTried(result)
      else {
        setMade(result)
        await client.invalidateQueries({ queryKey: ['sites'] })
      }
    } catch (failure) {
      setTried(undefined)
      setError(failure)
    } finally {
      setBusy(false)
    }
  }
  const shown = made ?? tried
  return (
    <Stack>
      <FileInput
        label={t('site.file')}
        description={t('site.fileHint')}
        accept=".csv,text/csv"
        value={file}
        onChange={(chosen) => {
          setFile(chosen)
          setTried(undefined)
          setMade(undefined)
          setError(undefined)
        }}
        clearable
        clearButtonProps={{ 'aria-label': t('common.clear') }}
        placeholder={t('site.choose')}
      />
      {error !== undefined && <ErrorPanel error={error} title={t('site.importFailed')} />}
      {shown && (
        <Stack gap="xs" role="status">
          <Text fw={600}>{t(made ? 'site.imported' : 'site.wouldImport')}</Text>
          <Facts
            rows={(['created', 'updated', 'unchanged', 'closed'] as const).map((name) => [
              t(`site.result.${name}`),
              format.number(shown[name]),
            ])}
          />
        </Stack>
      )}
      <Group justify="flex-end">
        <Button variant="default" onClick={onClose}>
          {t('common.close')}
        </Button>
        {!made && (
          <>
            <Button variant={tried ? 'default' : 'filled'} disabled={!file} loading={busy && !tried} onClick={() => void run(true)}>
              {t('site.tryOut')}
            </Button>
            {tried && (
              <Button loading={busy} onClick={() => void run(false)}>
                {t('site.import')}
              </Button>
            )}
          </>
        )}
      </Group>
    </Stack>
  )
}
