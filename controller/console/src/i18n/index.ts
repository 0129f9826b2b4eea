import i18next from 'i18next'
import { initReactI18next } from 'react-i18next'
import en from './en.json'
import vi from './vi.json'

export type Language = 'vi' | 'en'

const BROWSER_KEY = 'tram.lang'

function stored(key: string): Language | undefined {
  try {
    const value = localStorage.getItem(key)
    return value === 'vi' || value === 'en' ? value : undefined
  } catch {
    return undefined
  }
}

function apply(language: Language): void {
  void i18next.changeLanguage(language)
  document.documentElement.lang = language
}

/** Shows a language and keeps the choice for this browser. */
export function chooseLanguage(language: Language): void {
  try {
    localStorage.setItem(BROWSER_KEY, language)
  } catch {
    // Private windows may refuse storage; the choice then lasts as long as the page.
  }
  apply(language)
}

/** At sign-in: what was chosen in this browser, else what the account says. */
export function adoptLanguage(fromAccount?: string | null): void {
  const account = fromAccount === 'vi' || fromAccount === 'en' ? fromAccount : undefined
  apply(stored(BROWSER_KEY) ?? account ?? 'vi')
}

export function language(): Language {
  return i18next.language === 'en' ? 'en' : 'vi'
}

export function startI18n(): void {
  const initial = stored(BROWSER_KEY) ?? 'vi'
  document.documentElement.lang = initial
  void i18next.use(initReactI18next).init({
    lng: initial,
    fallbackLng: 'vi',
    resources: { vi: { translation: vi }, en: { translation: en } },
    interpolation: { escapeValue: false },
    initAsync: false,
  })
}
