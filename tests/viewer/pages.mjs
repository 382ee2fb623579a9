// node pages.mjs CHROMIUM URL SLIDE CHANNELS SCREENSHOTS
// Walks through the pages of `coverslip serve` as a person does, and prints what was seen at each step as JSON.
import path from 'node:path'
import { chromium } from 'playwright-core'

const [executablePath, url, slide, channels, folder] = process.argv.slice(2)
const browser = await chromium.launch({
  executablePath,
  args: [
    '--headless', '--no-sandbox', '--no-first-run', '--disable-quic', '--disable-background-networking',
    '--disable-component-update', '--disable-sync', '--use-gl=angle', '--use-angle=swiftshader',
    '--enable-unsafe-swiftshader',
  ],
})
const page = await browser.newPage({ viewport: { width: 1280, height: 800 } })
page.setDefaultTimeout(60_000)
const messages = []
const failedRequests = []
const otherHosts = []
const framesOf = {}
page.on('console', (message) => {
  if (['error', 'warning'].includes(message.type()) && !message.text().includes('GL Driver Message')) messages.push(message.text())
})
page.on('pageerror', (error) => messages.push(`uncaught: ${error.message}`))
page.on('requestfailed', (request) => {
  // A tile that is no longer wanted after zooming is let go.
  if (request.failure()?.errorText !== 'net::ERR_ABORTED') failedRequests.push(`${request.url()}: ${request.failure()?.errorText}`)
})
page.on('request', (request) => {
  if (!request.url().startsWith(url) && !/^(blob|data):/.test(request.url())) otherHosts.push(request.url())
})
page.on('response', (response) => {
  const instance = response.url().match(/instances\/([\d.]+)\/frames\//)?.[1]
  if (instance) framesOf[instance] = (framesOf[instance] ?? 0) + 1
})
const report = { messages, failedRequests, otherHosts, framesOf }
const shoot = async (name) => {
  const file = path.join(folder, `${name}.png`)
  await page.screenshot({ path: file })
  return file
}
const results = () =>
  page.evaluate(() => ({
    count: document.querySelector('#count').textContent,
    total: Number(document.querySelector('#count').dataset.total),
    slides: [...document.querySelectorAll('.slide h2')].map((each) => each.textContent),
    pictures: [...document.querySelectorAll('.picture img')].map((image) => image.naturalWidth),
    facets: Object.fromEntries([...document.querySelectorAll('.facet input')].map((input) => [
      `${input.name}${input.value}`, Number(input.closest('label').querySelector('.number').textContent),
    ])),
  }))
const isLoaded = () => page.waitForFunction(() => [...document.querySelectorAll('.picture img')].every((image) => image.complete))
const ready = () =>
  page.waitForFunction(() => ['ready', 'error'].includes(document.getElementById('viewer').dataset.state))
const settled = () =>
  page.evaluate(() => new Promise((resolve) => {
    const { map } = document.getElementById('viewer')
    map.once('rendercomplete', resolve)
    map.render()
  }))

try {
  await page.goto(url + '/')
  await isLoaded()
  report.all = { ...(await results()), file: await shoot('1-search') }
  await page.locator('.facet input[name=embedding]').first().check()
  await page.waitForURL(/embedding=/)
  await isLoaded()
  report.filtered = { ...(await results()), file: await shoot('2-filtered') }
  await page.goto(`${url}/?q=nothingofthekind`)
  report.none = { text: await page.textContent('.empty'), file: await shoot('3-nothing') }
  await page.goto(`${url}/`)
  await page.keyboard.press('Tab')
  report.skip = await page.evaluate(() => document.activeElement.textContent)
  await page.locator(`a[href="/slides/${slide}"]`).click()
  await page.waitForURL(/\/slides\//, { waitUntil: 'commit' })
  await ready()
  report.slide = {
    state: await page.getAttribute('#viewer', 'data-state'),
    said: await page.textContent('#state'),
    scale: await page.textContent('#scale-text'),
    headings: await page.locator('.panel h2').allTextContents(),
    text: await page.textContent('.panel'),
    file: await shoot('4-slide'),
  }
  await page.focus('#viewer')
  const resolution = () => page.evaluate(() => document.getElementById('viewer').view.getResolution())
  for (let press = 0; press < 12 && (await resolution()) > 1; press++) {
    await page.keyboard.press('+')
    await page.waitForTimeout(200)
  }
  await settled()
  report.zoomed = { resolution: await resolution(), hash: new URL(page.url()).hash, file: await shoot('5-zoomed') }
  await page.reload({ waitUntil: 'domcontentloaded' }) // as somebody who was given the address
  await ready()
  report.shared = { resolution: await resolution() }
  await page.setViewportSize({ width: 390, height: 800 })
  await page.goto(url + '/')
  await isLoaded()
  report.phone = {
    width: await page.evaluate(() => document.documentElement.scrollWidth), file: await shoot('6-phone'),
  }
  await page.setViewportSize({ width: 1280, height: 800 })
  await page.goto(`${url}/slides/${channels}`, { waitUntil: 'domcontentloaded' })
  await ready()
  report.said = await page.textContent('#state')
  await settled()
  report.channels = {
    state: await page.getAttribute('#viewer', 'data-state'),
    names: await page.locator('.channel legend').allTextContents(), file: await shoot('7-channels'),
  }
  await page.locator('.channel').nth(0).locator('[data-part=shown]').uncheck()
  await page.locator('.channel').nth(1).locator('[data-part=color]').fill('#ff0000')
  await settled()
  await page.waitForTimeout(300)
  report.recoloured = { file: await shoot('8-recoloured') }
  await page.goto(`${url}/slides/1.2.3`)
  report.missing = { text: await page.textContent('main'), file: await shoot('9-missing') }
  console.log(JSON.stringify(report, null, 2))
} catch (error) {
  console.error(error.message, JSON.stringify(report, null, 2))
  process.exitCode = 1
} finally {
  await browser.close()
}
