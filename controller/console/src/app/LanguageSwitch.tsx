import { SegmentedControl } from '@mantine/core'
import { useTranslation } from 'react-i18next'
import { chooseLanguage, type Language, language } from '../i18n'
import { useSignIn } from './session'

export function LanguageSwitch({ size = 'xs' }: { size?: 'xs' | 'sm' }) {
  const { t, i18n } = useTranslation()
  const { me } = useSignIn()
  void i18n.language
  return (
    <SegmentedControl
      size={size}
      aria-label={t('common.language')}
      value={language()}
      onChange={(value) => chooseLanguage(value as Language, me?.user.username)}
      data={[
        { value: 'vi', label: 'Tiếng Việt' },
        { value: 'en', label: 'English' },
      ]}
    />
  )
}
