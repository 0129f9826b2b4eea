// Fast checks of the console against the mock API: every page, its states, keys, and axe.
//   node tests/browser/ui.mjs        (needs controller/console/dist)
import { readFileSync } from 'node:fs'
import { openBrowser } from './lib/browser.mjs'
import { goTo, screen, signIn, signOut, viewerPhase, waitForScreen } from './lib/console.mjs'
import { consoleRequire } from './lib/deps.mjs'
import { check, shoot, Steps, until } from './lib/steps.mjs'
import { startMock } from './mock/server.mjs'

const axe = readFileSync(consoleRequire.resolve('axe-core/axe.min.js'), 'utf8')
const steps = new Steps()
const mock = await startMock()
const { url, password, world } = mock
const as = (username) => ({ username, password })

async function accessible(page, name) {
  // Overlays fade in; half-shown text has half its contrast.
  await page.waitForTimeout(350)
  await page.evaluate(axe)
  const { violations } = await page.evaluate(() => globalThis.axe.run(document, { resultTypes: ['violations'] }))
  const found = violations.map((v) => `${v.id}: ${v.nodes.map((n) => n.target.join(' ')).slice(0, 3).join(' | ')}`)
  check(found.length === 0, `${name}: ${found.join('\n')}`)
  const h1 = await page.locator('h1').count()
  check(h1 === 1, `${name}: ${h1} h1 elements`)
}

const noSideways = async (page, name) => {
  const [scroll, client] = await page.evaluate(() => [document.documentElement.scrollWidth, document.documentElement.clientWidth])
  check(scroll <= client, `${name}: the page is ${scroll} px wide in a window of ${client}`)
}

// ── sign-in ────────────────────────────────────────────────────────────────
{
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

// ── operator ───────────────────────────────────────────────────────────────
{
  const browser = await openBrowser(url)
  const page = (steps.page = browser.page)
  await steps.step('operator signs in and sees the overview', async () => {
    await signIn(page, url, as('vanhanh'))
    await page.getByRole('heading', { level: 1, name: 'Tổng quan' }).waitFor()
    await page.getByText('Đang chạy').first().waitFor()
    await shoot(page, 'ui-overview')
  })
  const pages = [
    ['Tổng quan', 'overview'], ['Máy chủ ảo hóa', 'hosts'], ['Bản cài mẫu', 'images'], ['Nhóm máy trạm ảo', 'pools'],
    ['Máy trạm ảo', 'desktops'], ['Phiên làm việc', 'sessions'], ['Sự cố', 'incidents'], ['Thiết bị đầu cuối', 'endpoints'],
    ['Mã đăng ký thiết bị', 'tokens'], ['Điểm triển khai', 'sites'], ['Người dùng', 'users'], ['Nhật ký kiểm toán', 'audit'],
  ]
  for (const [title, name] of pages) {
    await steps.step(`${name}: loads and passes axe`, async () => {
      await goTo(page, title)
      await page.locator('[role=status][aria-label="Đang tải…"]').waitFor({ state: 'detached' })
      await accessible(page, name)
      await shoot(page, `ui-${name}`)
    })
  }
  await steps.step('the host says TCG and why', async () => {
    await goTo(page, 'Máy chủ ảo hóa')
    await page.getByTestId('accel').getByText('vmx').waitFor()
    await page.getByText('11.3.0').waitFor()
  })
  await steps.step('the pool form refuses bad input, and shows the server\'s refusal', async () => {
    await goTo(page, 'Nhóm máy trạm ảo')
    await page.getByRole('button', { name: 'Tạo nhóm' }).click()
    const form = page.getByRole('dialog')
    await form.getByLabel('Tên nhóm').fill('Cổ Loa <script>')
    await form.getByRole('button', { name: 'Tạo nhóm' }).click()
    await form.getByText('1 đến 40 ký tự').waitFor()
    await form.getByText('Chọn điểm triển khai').waitFor()
    await form.getByLabel('Tên nhóm').fill('co-loa')
    await form.getByLabel('Đơn vị cấp xã').fill('minh khai')
    await page.getByRole('option', { name: /Huyện Hoài Đức/ }).click()
    await form.getByLabel('Bản cài mẫu').click()
    await page.getByRole('option', { name: /tram-test/ }).click()
    await form.getByLabel('Số máy').fill('50')
    await accessible(page, 'pool form')
    await shoot(page, 'ui-pool-form')
    await form.getByRole('button', { name: 'Tạo nhóm' }).click()
    await form.getByText('Đã có nhóm mang tên này').waitFor()
  })
  await steps.step('50 requested desktops become 50 without a reload', async () => {
    const form = page.getByRole('dialog')
    world.speed = 0.5
    await form.getByLabel('Tên nhóm').fill('minh-khai')
    await form.getByRole('button', { name: 'Tạo nhóm' }).click()
    await page.getByRole('heading', { level: 1, name: 'minh-khai' }).waitFor()
    const growth = page.getByTestId('growth')
    const first = parseInt(await growth.innerText(), 10)
    check(first < 50, `already ${first} at the start: nothing to watch`)
    const loads = []
    page.on('framenavigated', (frame) => frame === page.mainFrame() && loads.push(frame.url()))
    await until('some desktops on the way', async () => Number.parseInt(await growth.innerText(), 10) > 0)
    await shoot(page, 'ui-pool-growing')
    world.speed = 2
    await until('50 of 50', async () => /^50\s*\/\s*50/.test(await growth.innerText()))
    check(loads.length === 0, 'the page was reloaded')
    await accessible(page, 'pool')
  })
  await steps.step('a pool is resized, and shrinking warns', async () => {
    await page.getByRole('button', { name: 'Đổi số máy' }).click()
    const dialog = page.getByRole('dialog')
    await dialog.getByLabel('Số máy').fill('48')
    await dialog.getByText('2 máy trạm ảo sẽ bị xóa').waitFor()
    await accessible(page, 'resize')
    await dialog.getByRole('button', { name: 'Đổi', exact: true }).click()
    await until('48 of 48', async () => /^48\s*\/\s*48/.test(await page.getByTestId('growth').innerText()))
  })
  await steps.step('a pool gets limits of its own, and a wrong one is marked', async () => {
    await page.getByRole('button', { name: 'Đổi giới hạn' }).click()
    const dialog = page.getByRole('dialog')
    await dialog.getByLabel('Không thao tác (phút)').fill('9999999')
    await dialog.getByRole('button', { name: 'Lưu giới hạn' }).click()
    await dialog.getByText('Giá trị này ngoài giới hạn').first().waitFor()
    await dialog.getByLabel('Không thao tác (phút)').fill('15')
    await dialog.getByLabel('Thiết bị USB').click()
    await page.getByRole('option', { name: 'Cho phép' }).click()
    await accessible(page, 'limits')
    await shoot(page, 'ui-limits')
    await dialog.getByRole('button', { name: 'Lưu giới hạn' }).click()
    await dialog.waitFor({ state: 'detached' })
    const policy = world.pools.at(-1).policy
    check(policy.idle_minutes === 15 && policy.usb === true, JSON.stringify(policy))
  })
  await steps.step('a pool is deleted only after its name is typed', async () => {
    await page.getByRole('button', { name: 'Xóa nhóm' }).click()
    const dialog = page.getByRole('dialog')
    const button = dialog.getByRole('button', { name: 'Xóa nhóm' })
    check(await button.isDisabled(), 'the button works before the name is typed')
    await dialog.getByLabel(/để xác nhận/).fill('minh-khai')
    await accessible(page, 'delete')
    await shoot(page, 'ui-delete')
    await button.click()
    await page.getByRole('heading', { level: 1, name: 'Nhóm máy trạm ảo' }).waitFor()
    await until('the pool to go', async () => (await page.getByText('minh-khai').count()) === 0)
  })
  await steps.step('a desktop is stopped after a question and started without one', async () => {
    await goTo(page, 'Máy trạm ảo')
    const row = page.locator('tr', { hasText: 'co-loa-1' })
    await row.getByRole('button', { name: /Thao tác/ }).click()
    await page.getByRole('menuitem', { name: 'Tắt máy' }).click()
    await page.getByRole('dialog').getByText('việc chưa lưu có thể mất').waitFor()
    await page.getByRole('dialog').getByRole('button', { name: 'Tắt máy' }).click()
    await row.locator('[data-state=stopped]').waitFor()
    await row.getByRole('button', { name: /Thao tác/ }).click()
    await page.getByRole('menuitem', { name: 'Bật máy' }).click()
    await row.locator('[data-state=running]').waitFor()
  })
  await steps.step('a desktop\'s particulars show its screen', async () => {
    await page.getByRole('button', { name: 'co-loa-1', exact: true }).click()
    await page.getByRole('img', { name: /Ảnh màn hình/ }).waitFor()
    await accessible(page, 'desktop')
    await page.keyboard.press('Escape')
    await page.getByRole('dialog').waitFor({ state: 'detached' })
  })
  await steps.step('the / key goes to the search field, Escape empties it', async () => {
    await page.keyboard.press('/')
    await page.keyboard.type('khong-co-dau')
    await page.getByText('Không có kết quả phù hợp').waitFor()
    await page.keyboard.press('Escape')
    await page.locator('tr', { hasText: 'co-loa-1' }).waitFor()
  })
  await steps.step('5,000 desktops scroll with few rows drawn, and filter', async () => {
    const template = world.desktops[0]
    const many = Array.from({ length: 5000 }, (_, i) => ({ ...template, id: `many-${i}`, name: `lon-${i}`, state: 'stopped', desired: 'stopped' }))
    const kept = world.desktops
    world.desktops = [...kept, ...many]
    await page.reload()
    await page.getByText('Hiển thị 5.002 trong 5.002').waitFor()
    check((await page.locator('tbody tr').count()) < 80, 'all rows are drawn')
    const region = page.getByRole('region', { name: 'Máy trạm ảo' })
    await region.focus()
    await page.keyboard.press('End')
    await page.locator('tr', { hasText: 'lon-4999' }).waitFor()
    await page.getByRole('searchbox').fill('lon-777')
    await page.locator('tr', { hasText: 'lon-777' }).first().waitFor()
    await page.getByText('Hiển thị 1 trong').waitFor()
    await accessible(page, '5,000 desktops')
    await shoot(page, 'ui-desktops-5000')
    world.desktops = kept
  })
  await steps.step('sites are found without diacritics, with the district shown', async () => {
    await goTo(page, 'Điểm triển khai')
    await page.getByRole('searchbox').fill('ung hoa')
    await page.locator('tbody tr', { hasText: 'Huyện Ứng Hòa' }).waitFor()
    await page.getByRole('searchbox').fill('minh khai')
    await page.locator('tbody tr', { hasText: 'Quận Bắc Từ Liêm' }).waitFor()
    await page.locator('tbody tr', { hasText: 'Huyện Hoài Đức' }).waitFor()
  })
  await steps.step('the line of a site is shown with its use, and set within what a line can carry', async () => {
    await page.getByRole('searchbox').fill('co loa')
    await page.getByRole('button', { name: 'Xã Cổ Loa' }).click()
    const dialog = page.getByRole('dialog')
    await dialog.getByText('3 phiên đang dùng 2,4 Mbit/s trong 6,8 Mbit/s').waitFor()
    await dialog.getByLabel('Tốc độ tải về').fill('12')
    await dialog.getByRole('button', { name: 'Lưu đường truyền' }).click()
    await dialog.getByText('Tốc độ đường truyền phải từ 64').waitFor()
    await accessible(page, 'site line')
    await shoot(page, 'ui-site-line')
    await dialog.getByLabel('Tốc độ tải về').fill('20000')
    await dialog.getByRole('button', { name: 'Lưu đường truyền' }).click()
    await page.locator('tbody tr', { hasText: 'Cổ Loa' }).getByText('20 Mbit/s').waitFor()
  })
  await steps.step('a bad CSV shows every fault by line and imports nothing; a good one is tried first', async () => {
    await page.getByRole('button', { name: 'Nhập từ CSV' }).click()
    const dialog = page.getByRole('dialog')
    const choose = (text) =>
      page.locator('input[type=file]').setInputFiles({ name: 'sites.csv', mimeType: 'text/csv', buffer: Buffer.from(text) })
    await choose('a,b\n1,2\n3,4\n')
    await dialog.getByRole('button', { name: 'Kiểm tra thử' }).click()
    await dialog.getByText('Dòng 3:').waitFor()
    check((await dialog.getByRole('button', { name: 'Nhập từ CSV' }).count()) === 0, 'a bad file can be imported')
    await accessible(page, 'import faults')
    await shoot(page, 'ui-import-faults')
    await choose('commune_code,commune_name\n00001,Phúc Xá\n')
    await dialog.getByRole('button', { name: 'Kiểm tra thử' }).click()
    await dialog.getByText('Nếu nhập, kết quả sẽ là').waitFor()
    await dialog.getByRole('button', { name: 'Nhập từ CSV' }).click()
    await dialog.getByText('Đã nhập xong').waitFor()
    await page.keyboard.press('Escape')
  })
  await steps.step('a user is added', async () => {
    await goTo(page, 'Người dùng')
    await page.getByRole('button', { name: 'Thêm người dùng' }).click()
    const dialog = page.getByRole('dialog')
    await dialog.getByLabel('Tên đăng nhập').fill('canbo2')
    await dialog.getByLabel('Họ và tên').fill('Đỗ Văn Ứng')
    await dialog.getByLabel('Phạm vi').fill('co loa')
    await page.getByRole('option', { name: /Cổ Loa/ }).click()
    await dialog.getByLabel(/^Mật khẩu/).fill('ngan')
    await dialog.getByRole('button', { name: 'Thêm người dùng' }).click()
    await dialog.locator('.mantine-InputWrapper-error').first().waitFor()
    await dialog.getByLabel(/^Mật khẩu/).fill('mat-khau-dai-hon')
    await accessible(page, 'user form')
    await dialog.getByRole('button', { name: 'Thêm người dùng' }).click()
    await page.locator('tr', { hasText: 'Đỗ Văn Ứng' }).waitFor()
  })
  await steps.step('a failing list shows its code and recovers by the button', async () => {
    mock.failOn('/api/v1/images')
    await page.goto(`${url}/console/images`)
    await page.getByRole('alert').getByText('X-500').waitFor({ timeout: 20_000 })
    await accessible(page, 'error state')
    await shoot(page, 'ui-error')
    mock.failOn(null)
    await page.getByRole('button', { name: 'Thử lại' }).click()
    await page.getByText('tram-test').first().waitFor()
  })
  await steps.step('an empty list says what to do', async () => {
    const kept = [world.pools, world.desktops]
    ;[world.pools, world.desktops] = [[], []]
    await page.goto(`${url}/console/pools`)
    await page.getByText('Chưa có nhóm máy trạm ảo').waitFor()
    await accessible(page, 'empty state')
    ;[world.pools, world.desktops] = kept
  })
  await steps.step('an ended sign-in leads back to the form with an explanation', async () => {
    mock.forgetCookies()
    await page.getByRole('navigation').getByRole('link', { name: 'Máy chủ ảo hóa' }).click()
    await page.getByText('Phiên đăng nhập đã hết hạn').waitFor()
  })
  await steps.step('no outside request, page error or policy breach (operator)', async () =>
    check(!browser.faults.length, browser.faults.join('\n')))
  await browser.close()
}

// ── support ────────────────────────────────────────────────────────────────
{
  const browser = await openBrowser(url)
  const page = (steps.page = browser.page)
  const support = world.users.find((u) => u.username === 'hotro')
  support.username = 'hotro2' // 'hotro' was locked out above
  await steps.step('support starts at the incidents: cause, site and evidence, and a map', async () => {
    await signIn(page, url, as('hotro2'))
    await page.getByRole('heading', { level: 1, name: 'Sự cố' }).waitFor()
    const row = page.locator('tr', { hasText: 'Đường truyền của đơn vị' })
    await row.getByText('Cả 2 máy của đơn vị đều mất tín hiệu').waitFor()
    await row.getByText('Nghiêm trọng').waitFor()
    await page.getByRole('region', { name: 'Bản đồ điểm theo quận, huyện' }).getByRole('link', { name: 'Xã Cổ Loa: nghiêm trọng' }).waitFor()
    await accessible(page, 'incidents')
    await shoot(page, 'ui-incidents')
  })
  await steps.step('support takes an incident on, hands it to the carrier with a clock, and writes a note', async () => {
    await page.getByRole('link', { name: 'Đường truyền của đơn vị' }).click()
    await page.getByText('Chưa loại trừ mất điện: hỏi đơn vị').waitFor()
    await page.getByRole('button', { name: 'Tôi nhận việc này' }).click()
    await page.getByText('hotro2').first().waitFor()
    await page.getByRole('button', { name: 'Chuyển xử lý' }).click()
    await page.getByRole('dialog').getByLabel('Nội dung đã báo').fill('phiếu 12/VNPT')
    await page.getByRole('dialog').getByRole('button', { name: 'Chuyển xử lý' }).click()
    await page.getByText('phiếu 12/VNPT').waitFor()
    await page.getByLabel('Ghi chú').fill('Đơn vị báo: đèn PON tắt')
    await page.getByRole('button', { name: 'Thêm ghi chú' }).click()
    await page.getByText('Đơn vị báo: đèn PON tắt').first().waitFor()
    await accessible(page, 'incident')
    await shoot(page, 'ui-incident')
  })
  await steps.step('support sees who is silent', async () => {
    await goTo(page, 'Thiết bị đầu cuối')
    await page.getByRole('heading', { level: 1, name: 'Thiết bị đầu cuối' }).waitFor()
    await page.locator('tr', { hasText: 'may-co-loa-02' }).getByText('Mất tín hiệu').waitFor()
    check((await page.getByRole('navigation').getByRole('link', { name: 'Người dùng' }).count()) === 0, 'support sees user administration')
  })
  await steps.step('an endpoint shows hardware, network, vitals and the time it was last seen', async () => {
    await page.getByRole('link', { name: 'may-co-loa-01' }).click()
    for (const text of ['Celeron J4125', '3,8 GiB', '11,4 ms', '47,5 °C', '10.20.1.15']) await page.getByText(text).first().waitFor()
    await page.getByText(/(\d+ giây trước|vừa xong) \(\d\d\/\d\d\/\d{4} \d\d:\d\d:\d\d\)/).waitFor()
    await accessible(page, 'endpoint')
    await shoot(page, 'ui-endpoint')
  })
  await steps.step('a silent endpoint appears by event, without a reload', async () => {
    const row = { ...world.endpoints[0], state: 'silent', verdict: 'crit' }
    world.emit('endpoint', [row])
    await page.locator('[data-state=silent]').waitFor()
    world.emit('endpoint', [world.endpoints[0]])
  })
  await steps.step('an enrolment code is shown once, to copy', async () => {
    await goTo(page, 'Mã đăng ký thiết bị')
    await page.getByRole('button', { name: 'Tạo mã đăng ký' }).click()
    const dialog = page.getByRole('dialog')
    await dialog.getByLabel('Đơn vị cấp xã').fill('van dinh')
    await page.getByRole('option', { name: /Vân Đình/ }).click()
    await dialog.getByRole('button', { name: 'Tạo mã đăng ký' }).click()
    const token = await dialog.getByTestId('token').innerText()
    check(token.startsWith('vde1_'), `token is ${token}`)
    await accessible(page, 'token')
    await shoot(page, 'ui-token')
    await dialog.getByRole('button', { name: 'Đóng' }).last().click()
    await page.locator('tr', { hasText: 'Vân Đình' }).waitFor()
    check((await page.getByText(token).count()) === 0, 'the token is still on the page')
  })
  await steps.step('ended sessions appear with the switch', async () => {
    const ended = world.connect('canbo')
    ended.state = 'ended'
    await goTo(page, 'Phiên làm việc')
    await page.getByText('Không có phiên').waitFor()
    await page.getByLabel('Cả phiên đã kết thúc').click()
    await page.locator('tbody tr[data-row]').first().waitFor()
    await accessible(page, 'sessions')
    await shoot(page, 'ui-sessions')
    await page.getByRole('button', { name: 'canbo', exact: true }).click()
    await page.getByTestId('guilty').getByText('đường truyền của điểm này').waitFor()
    await page.getByTestId('guilty').getByText('báo nhà mạng').waitFor()
    await page.getByTestId('course').getByRole('img', { name: /^Khứ hồi: .* cao nhất/ }).waitFor()
    await accessible(page, 'why slow')
    await shoot(page, 'ui-why-slow')
    await page.keyboard.press('Escape')
    await page.getByRole('dialog').waitFor({ state: 'detached' })
    world.sessions = []
  })
  await steps.step('no outside request, page error or policy breach (support)', async () =>
    check(!browser.faults.length, browser.faults.join('\n')))
  await browser.close()
}

// ── officer ────────────────────────────────────────────────────────────────
{
  const browser = await openBrowser(url)
  const page = (steps.page = browser.page)
  await steps.step('officer sees one big button', async () => {
    await signIn(page, url, as('canbo'))
    await page.getByRole('button', { name: 'Mở máy trạm ảo' }).waitFor()
    await page.getByText('Huyện Đông Anh').first().waitFor()
    await accessible(page, 'officer')
    await shoot(page, 'ui-officer')
  })
  await steps.step('a cold desktop shows honest progress, then its screen', async () => {
    world.speed = 0
    world.desktops[0].state = 'booting'
    await page.getByRole('button', { name: 'Mở máy trạm ảo' }).click()
    await page.getByText('thường mất khoảng').waitFor()
    await page.getByText('Khởi động hệ điều hành').waitFor()
    await accessible(page, 'progress')
    await shoot(page, 'ui-progress')
    await page.getByText('lâu hơn thường lệ').waitFor()
    world.speed = 2
    const seen = await waitForScreen(page, 500, 20_000)
    check(seen.width === 640 && seen.height === 400, `canvas ${seen.width}x${seen.height}`)
    await accessible(page, 'viewer')
    await shoot(page, 'ui-viewer')
  })
  await steps.step('keys go to the desktop raw, in order', async () => {
    mock.desktopState.keys.length = 0
    await page.keyboard.type('tieengs vieejt', { delay: 10 })
    await until('14 keys', async () => mock.desktopState.keys.length >= 14)
    const typed = String.fromCharCode(...mock.desktopState.keys)
    check(typed === 'tieengs vieejt', `the desktop got ${typed}`)
  })
  await steps.step('a near limit is told over the desktop, and the officer may say that they are there', async () => {
    const session = world.sessions.at(-1)
    session.closing = { why: 'idle', at: new Date(Date.now() + 280_000).toISOString() }
    world.emit('session', [world.sessionRow(session)])
    await page.getByText('Màn hình sẽ ngắt sau').waitFor()
    await accessible(page, 'limit near')
    await shoot(page, 'ui-limit-near')
    session.closing = { why: 'idle', at: new Date(Date.now() + 50_000).toISOString() }
    world.emit('session', [world.sessionRow(session)])
    await page.getByRole('alert').getByText('Màn hình sẽ ngắt sau').waitFor()
    await accessible(page, 'limit very near')
    await shoot(page, 'ui-limit-very-near')
    await page.getByRole('button', { name: 'Tôi vẫn ở đây' }).click()
    await page.getByText('Màn hình sẽ ngắt sau').waitFor({ state: 'detached' })
    session.closing = { why: 'longest', at: new Date(Date.now() + 200_000).toISOString() }
    world.emit('session', [world.sessionRow(session)])
    await page.getByText('Xin lưu việc ngay').waitFor()
    session.closing = null
    world.emit('session', [world.sessionRow(session)])
    await page.getByText('Xin lưu việc ngay').waitFor({ state: 'detached' })
    await page.locator('.viewer-canvas canvas').click()
  })
  await steps.step('support asks to watch; the officer is asked, sees who watches, and stops it', async () => {
    const helper = await openBrowser(url)
    const tab = helper.page
    const session = world.sessions.at(-1)
    await signIn(tab, url, as('hotro2'))
    await goTo(tab, 'Phiên làm việc')
    await tab.getByRole('button', { name: 'canbo', exact: true }).click()
    await tab.getByRole('dialog').getByRole('button', { name: 'Xem màn hình' }).click()
    await tab.getByLabel('Lý do').fill('Máy in không chạy')
    await accessible(tab, 'ask to watch')
    await tab.getByRole('button', { name: 'Xin xem' }).click()
    await tab.getByText('Đang chờ canbo trả lời').waitFor()
    await page.getByRole('alert').getByText('Lê Thị Hỗ Trợ (hỗ trợ) xin xem màn hình này').waitFor()
    await page.getByText('Máy in không chạy').waitFor()
    await accessible(page, 'asked to be watched')
    await shoot(page, 'ui-assist-asked')
    await page.getByTestId('assist').getByRole('button', { name: 'Từ chối' }).click()
    await tab.getByText('Cán bộ từ chối.').waitFor()
    await page.getByTestId('assist').waitFor({ state: 'detached' })
    await accessible(tab, 'refused')

    await tab.getByLabel('Lý do').fill('Máy in không chạy')
    await tab.getByRole('button', { name: 'Xin lại' }).click()
    await page.getByTestId('assist').getByRole('button', { name: 'Cho xem' }).click()
    const seen = await waitForScreen(tab, 500, 20_000)
    check(seen.width === 640, `canvas ${seen.width}`)
    await page.getByText('Lê Thị Hỗ Trợ (hỗ trợ) đang xem màn hình này').waitFor()
    check((await viewerPhase(page)) === 'open', 'the officer was put out')
    await accessible(tab, 'watching')
    await accessible(page, 'watched')
    await shoot(tab, 'ui-assist-watching')
    await shoot(page, 'ui-assist-watched')
    const keys = mock.desktopState.keys.length
    await tab.locator('.viewer-canvas canvas').click()
    await tab.keyboard.type('abc')
    await tab.getByText('Chỉ xem').waitFor()
    check(mock.desktopState.keys.length === keys, 'a key of who only watches was sent')
    await tab.getByRole('button', { name: 'Xin bàn phím, chuột' }).click()
    await page.getByRole('alert').getByText('xin dùng bàn phím và chuột').waitFor()
    await accessible(page, 'asked for control')
    await shoot(page, 'ui-assist-control')
    await page.getByRole('button', { name: 'Cho dùng' }).click()
    await tab.getByText('Dùng được bàn phím, chuột').waitFor()
    await page.getByText('đang xem và dùng bàn phím, chuột').waitFor()
    await tab.locator('.viewer-canvas canvas').click()
    await tab.keyboard.type('xyz')
    await until('3 keys of support', async () => mock.desktopState.keys.length === keys + 3)
    await page.getByTestId('assist').getByRole('button', { name: 'Dừng' }).click()
    await tab.getByText('Cán bộ đã dừng.').waitFor()
    await page.getByTestId('assist').waitFor({ state: 'detached' })
    check((await viewerPhase(page)) === 'open', 'the officer was put out')
    check(world.assists.of(session.id)[0].end_reason === 'officer', 'ended by somebody else')
    await shoot(tab, 'ui-assist-over')
    check(!helper.faults.length, helper.faults.join('\n'))
    await helper.close()
    await page.locator('.viewer-canvas canvas').click()
  })
  await steps.step('a stop that does not get through says so', async () => {
    const session = world.sessions.at(-1)
    const assist = world.assists.ask(session.id, { username: 'hotro2', display_name: 'Lê Thị Hỗ Trợ' }, 'thử')
    Object.assign(assist, { state: 'active' })
    world.assists.changed(session.id)
    const stop = page.getByTestId('assist').getByRole('button', { name: 'Dừng' })
    await stop.waitFor()
    mock.failOn(`/api/v1/sessions/${session.id}/assists`, 503)
    await stop.click()
    await page.getByText('Chưa làm được, xin bấm lại').waitFor()
    mock.failOn(null)
    await stop.click()
    await page.getByTestId('assist').waitFor({ state: 'detached' })
    await page.locator('.viewer-canvas canvas').click()
  })
  await steps.step('a cut line is announced and comes back to the same desktop with a new ticket', async () => {
    const keys = mock.desktopState.keys.length
    let tickets = 0
    page.on('request', (request) => request.url().endsWith('/ticket') && (tickets += 1))
    mock.cutLines()
    await until('the viewer to notice', async () => (await viewerPhase(page)) !== 'open')
    await until('the viewer to be back', async () => (await viewerPhase(page)) === 'open')
    check(tickets === 1, `${tickets} tickets were fetched`)
    await waitForScreen(page, 500, 10_000)
    check(mock.desktopState.keys.length === keys, 'keys were repeated')
  })
  await steps.step('without a network the viewer says the work is safe, and returns with the network', async () => {
    await browser.context.setOffline(true)
    await page.getByText('việc của anh/chị vẫn an toàn').waitFor()
    await page.getByText('K-102').waitFor()
    await accessible(page, 'line lost')
    await shoot(page, 'ui-lost')
    await browser.context.setOffline(false)
    await until('the viewer to be back', async () => (await viewerPhase(page)) === 'open')
  })
  await steps.step('leaving keeps the session, the button then offers the way back', async () => {
    await page.getByRole('button', { name: 'Rời máy' }).click()
    await page.getByRole('menuitem', { name: 'Ngắt kết nối, giữ phiên' }).click()
    await page.getByText('Ai đã xem màn hình').waitFor()
    await accessible(page, 'who watched')
    await shoot(page, 'ui-assist-history')
    await page.getByRole('button', { name: 'Quay lại máy trạm ảo' }).click()
    await until('the viewer to be back', async () => (await viewerPhase(page)) === 'open')
    check((await screen(page)).colours > 500, 'no picture')
  })
  await steps.step('a desktop that is open elsewhere is moved only after a question', async () => {
    await page.getByRole('button', { name: 'Rời máy' }).click()
    await page.getByRole('menuitem', { name: 'Ngắt kết nối, giữ phiên' }).click()
    world.elsewhere = { kind: 'endpoint', name: 'may-co-loa-02', since: new Date().toISOString() }
    await page.getByRole('button', { name: 'Quay lại máy trạm ảo' }).click()
    await page.getByText('trên thiết bị may-co-loa-02').waitFor()
    await accessible(page, 'open elsewhere')
    await shoot(page, 'ui-elsewhere')
    await page.getByRole('button', { name: 'Để nguyên nơi kia' }).click()
    await page.getByRole('button', { name: 'Quay lại máy trạm ảo' }).click()
    await page.getByRole('button', { name: 'Làm việc tại đây' }).click()
    await until('the viewer to be open', async () => (await viewerPhase(page)) === 'open')
  })
  await steps.step('a second window takes over, and the first says so', async () => {
    const second = await browser.context.newPage()
    await second.goto(`${url}/console/desktop`)
    await until('the second to be open', async () => (await viewerPhase(second)) === 'open')
    await page.getByText('đang mở ở nơi khác').waitFor()
    await page.getByText('G-404').waitFor()
    await second.close()
    await page.getByRole('button', { name: 'Làm việc tại đây' }).click()
    await until('the first to be open', async () => (await viewerPhase(page)) === 'open')
  })
  await steps.step('ending the session asks first, then closes', async () => {
    await page.getByRole('button', { name: 'Rời máy' }).click()
    await page.getByRole('menuitem', { name: 'Kết thúc phiên' }).click()
    await page.getByRole('dialog').getByRole('button', { name: 'Kết thúc phiên' }).click()
    await page.getByRole('button', { name: 'Mở máy trạm ảo' }).waitFor()
  })
  await steps.step('with no desktop free there is a place in line that moves up by itself', async () => {
    world.ahead = 3
    await page.getByRole('button', { name: 'Mở máy trạm ảo' }).click()
    await page.getByText('Thứ 3 / 5').waitFor()
    await page.getByText('Dự tính còn khoảng').waitFor()
    await accessible(page, 'in line')
    await shoot(page, 'ui-line')
    world.moveUp()
    await page.getByText('Thứ 2 / 4').waitFor()
    world.moveUp()
    world.moveUp()
    await until('the viewer to be open', async () => (await viewerPhase(page)) === 'open')
    await page.getByRole('button', { name: 'Rời máy' }).click()
    await page.getByRole('menuitem', { name: 'Kết thúc phiên' }).click()
    await page.getByRole('dialog').getByRole('button', { name: 'Kết thúc phiên' }).click()
    await page.getByRole('button', { name: 'Mở máy trạm ảo' }).waitFor()
    await signOut(page)
  })
  await steps.step('no outside request, page error or policy breach (officer)', async () =>
    check(!browser.faults.length, browser.faults.join('\n')))
  await browser.close()
}

// ── narrow, dark, English ──────────────────────────────────────────────────
{
  const browser = await openBrowser(url, { width: 375, height: 740, dark: true })
  const page = (steps.page = browser.page)
  await steps.step('375 px in the dark: nothing scrolls sideways, axe passes', async () => {
    await signIn(page, url, as('vanhanh'))
    for (const [path, name] of [['', 'overview'], ['hosts', 'hosts'], ['pools', 'pools'], ['desktops', 'desktops'], ['sites', 'sites'], ['users', 'users'], ['sessions', 'sessions'], ['incidents', 'incidents'], [`incidents/${world.incidents[0].id}`, 'incident'], [`pools/${world.pools[0].id}`, 'pool'], [`endpoints/${world.endpoints[0].id}`, 'endpoint']]) {
      await page.goto(`${url}/console/${path}`)
      await page.getByRole('heading', { level: 1 }).waitFor()
      await page.locator('[role=status][aria-label="Đang tải…"]').waitFor({ state: 'detached' })
      await noSideways(page, name)
      await accessible(page, `${name}, dark`)
      await shoot(page, `ui-narrow-${name}`)
    }
  })
  await steps.step('375 px: why it is slow fits as one picture', async () => {
    world.connect('canbo')
    await page.goto(`${url}/console/sessions`)
    await page.getByRole('button', { name: 'canbo', exact: true }).click()
    await page.getByTestId('course').waitFor()
    await noSideways(page, 'why slow')
    await accessible(page, 'why slow, narrow')
    await shoot(page, 'ui-narrow-why-slow')
    await page.getByTestId('course').scrollIntoViewIfNeeded()
    await page.getByTestId('course').locator('svg').last().scrollIntoViewIfNeeded()
    await shoot(page, 'ui-narrow-why-slow-course')
    await page.keyboard.press('Escape')
    world.sessions = []
  })
  await steps.step('375 px: the line, the question and the warning fit', async () => {
    await signOut(page)
    await signIn(page, url, as('canbo'))
    world.ahead = 2
    await page.getByRole('button', { name: 'Mở máy trạm ảo' }).click()
    await page.getByText('Thứ 2 / 4').waitFor()
    await noSideways(page, 'line')
    await shoot(page, 'ui-narrow-line')
    world.elsewhere = { kind: 'browser', since: new Date().toISOString() }
    world.ahead = 0
    await page.reload()
    await page.getByText('trên một trình duyệt khác').waitFor()
    await noSideways(page, 'elsewhere')
    await shoot(page, 'ui-narrow-elsewhere')
    await page.getByRole('button', { name: 'Làm việc tại đây' }).click()
    await until('the viewer to be open', async () => (await viewerPhase(page)) === 'open')
    const session = world.sessions.at(-1)
    session.closing = { why: 'longest', at: new Date(Date.now() + 50_000).toISOString() }
    world.assists.ask(session.id, { username: 'hotro2', display_name: 'Lê Thị Hỗ Trợ' }, 'Máy in không chạy, màn hình báo lỗi')
    world.emit('session', [world.sessionRow(session)])
    await page.getByText('Xin lưu việc ngay').waitFor()
    await page.getByRole('button', { name: 'Cho xem' }).waitFor()
    await noSideways(page, 'warning')
    await shoot(page, 'ui-narrow-warning')
    world.sessions = []
  })
  await browser.close()
  const english = await openBrowser(url, { language: 'en' })
  steps.page = english.page
  await steps.step('the same in English', async () => {
    const { page: tab } = english
    await tab.goto(`${url}/console/`)
    await tab.getByLabel('User name').fill('vanhanh')
    await tab.getByLabel('Password', { exact: true }).fill(password)
    await tab.getByRole('button', { name: 'Sign in', exact: true }).click()
    await tab.getByRole('heading', { level: 1, name: 'Overview' }).waitFor()
    await tab.goto(`${url}/console/hosts`)
    await tab.getByText('its processor shows neither vmx nor svm').waitFor()
    await shoot(tab, 'ui-english-hosts')
    await tab.goto(`${url}/console/incidents`)
    await tab.getByText('All 2 computers of the office are silent').waitFor()
    await shoot(tab, 'ui-english-incidents')
    world.connect('canbo')
    await tab.goto(`${url}/console/sessions`)
    await tab.getByRole('button', { name: 'canbo', exact: true }).click()
    await tab.getByText("Slow because of the site's line").waitFor()
    await tab.getByTestId('guilty').getByText('call the carrier').waitFor()
    await tab.getByTestId('course').waitFor()
    await shoot(tab, 'ui-english-why-slow')
    await tab.getByTestId('course').locator('svg').last().scrollIntoViewIfNeeded()
    await shoot(tab, 'ui-english-why-slow-course')
  })
  await english.close()
}

await mock.close()
process.exit(steps.finish())
