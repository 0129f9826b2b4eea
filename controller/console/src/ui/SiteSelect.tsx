import { Select } from '@mantine/core'
import { useDebouncedValue } from '@mantine/hooks'
import { keepPreviousData, useQuery } from '@tanstack/react-query'
import { type ReactNode, useRef, useState } from 'react'
import { useTranslation } from 'react-i18next'
import * as calls from '../api/calls'
import { keys } from '../api/keys'
import type { Site } from '../api/types'

/** Names repeat inside the city, so the district is always part of what is shown. */
export function siteLabel(site: Pick<Site, 'name' | 'district' | 'code'>): string {
  return `${site.name}${site.district ? `, ${site.district.name}` : ''} (${site.code})`
}

/** A commune picked by typing; the controller does the search, with or without diacritics. */
export function SiteSelect({
  value,
  onChange,
  error,
  label,
  level = 'commune',
  required,
}: {
  value: string
  onChange: (code: string) => void
  error?: ReactNode
  label?: string
  level?: string
  required?: boolean
}) {
  const { t } = useTranslation()
  const [text, setText] = useState('')
  // A chosen label put back into the field is not a new search.
  const chosen = useRef('')
  const [query] = useDebouncedValue(text === chosen.current ? '' : text.trim(), 200)
  const found = useQuery({
    queryKey: keys.sites(query, level),
    queryFn: () => calls.sites(query, level, 50),
    placeholderData: keepPreviousData,
  })
  const options = (found.data?.items ?? []).map((site) => ({ value: site.code, label: siteLabel(site) }))
  if (value && chosen.current && !options.some((option) => option.value === value)) {
    options.unshift({ value, label: chosen.current })
  }
  return (
    <Select
      label={label ?? t('site.commune')}
      description={t('site.pickHint')}
      searchable
      withAsterisk={required}
      data={options}
      filter={({ options: all }) => all}
      value={value || null}
      onChange={(code, option) => {
        chosen.current = option?.label ?? ''
        onChange(code ?? '')
      }}
      searchValue={text}
      onSearchChange={setText}
      nothingFoundMessage={found.isFetching ? t('common.loading') : t('common.nothingMatches')}
      error={error}
      maxDropdownHeight={260}
    />
  )
}
