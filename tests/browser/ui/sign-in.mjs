// What the console shows: the sign-in page.
import { openBrowser } from '../lib/browser.mjs'
import { check, shoot, until } from '../lib/steps.mjs'
import { accessible } from './page.mjs'

export async function signInPage({ steps, url }) {
  const browser = await openBrowser(url)
  const page = (steps.page = browser.page)
  await steps.step('sign-in page is in Vietnamese and accessible', async () => {
    await page.goto(`${url}/console/`)
    await page.getByRole('heading', { name: 'Đăng nhập Tram' }).waitFor()
    check((await page.locator('html').getAttribute('lang')) === 'vi', 'lang is not vi')
    await accessible(page, 'sign-in')
    await shoot(page, 'ui-login')
  })
  await steps.step('a wrong password says how many tries are left', async () => {
    await page.getByLabel('Tên đăng nhập').fill('vanhanh')
    await page.getByLabel('Mật khẩu', { exact: true }).fill('sai')
    await page.keyboard.press('Enter')
    await page.getByText('Anh/chị còn 4 lần thử').waitFor()
    await page.getByText('A-101').waitFor()
    await accessible(page, 'sign-in error')
  })
  await steps.step('a locked account says until when', async () => {
    await page.getByLabel('Tên đăng nhập').fill('hotro')
    for (let i = 0; i < 6; i += 1) {
      await page.getByLabel('Mật khẩu', { exact: true }).fill('sai')
      const answer = page.waitForResponse('**/api/v1/login')
      await page.keyboard.press('Enter')
      await answer
      // Until the page has taken the answer in, it takes no other try.
      await page.locator('button[type=submit]:not([data-loading])').waitFor()
    }
    await page.getByText(/tạm khóa đến \d\d:\d\d/).waitFor()
  })
  await steps.step('a dead line at sign-in is explained with its code', async () => {
    await browser.context.setOffline(true)
    await page.getByLabel('Mật khẩu', { exact: true }).fill('sai')
    await page.keyboard.press('Enter')
    await page.getByText('Chưa kết nối được tới trung tâm dữ liệu').waitFor()
    await page.getByText('K-102').waitFor()
    await page.getByText('024 1022').waitFor()
    await browser.context.setOffline(false)
  })
  await steps.step('the language switch is kept over a reload', async () => {
    await page.getByText('English').click()
    await page.getByRole('heading', { name: 'Sign in to Tram' }).waitFor()
    await page.reload()
    await page.getByRole('heading', { name: 'Sign in to Tram' }).waitFor()
    await page.getByText('Tiếng Việt').click()
  })
  await steps.step('no outside request, page error or policy breach', async () => check(!browser.faults.length, browser.faults.join('\n')))
  await browser.close()
}
