// Opens HTML pages in Chromium at two widths, light and dark: screenshots, a PDF, and a line for each fault.
// Run by browser_pages.py: node browser_pages.mjs CHROMIUM OUT PAGE...
import fs from "node:fs";
import path from "node:path";
import { createRequire } from "node:module";

const [chromium, out, ...pages] = process.argv.slice(2);
const load = createRequire(path.join(out, "package.json"));
const puppeteer = load("puppeteer-core");
const axe = fs.readFileSync(load.resolve("axe-core/axe.min.js"), "utf8");

// run in the page: text of drawings that is cut off or lies over other text, and a page wider than the window
function faultsOfLayout() {
  const faults = [];
  const wide = document.documentElement.scrollWidth - document.documentElement.clientWidth;
  if (wide > 0) faults.push(`the page is ${wide} px wider than the window`);
  for (const svg of document.querySelectorAll("svg")) {
    const frame = svg.getBoundingClientRect();
    const texts = [...svg.querySelectorAll("text")].map((text) => [text.textContent, text.getBoundingClientRect()]);
    texts.forEach(([words, box], at) => {
      const isCut = box.left < frame.left - 1 || box.right > frame.right + 1 || box.bottom > frame.bottom + 1;
      if (isCut) faults.push(`"${words}" leaves its drawing`);
      for (const [others, other] of texts.slice(at + 1)) {
        const apart = box.right <= other.left || other.right <= box.left || box.bottom <= other.top + 2 || other.bottom <= box.top + 2;
        if (!apart) faults.push(`"${words}" lies over "${others}"`);
      }
    });
  }
  for (const one of document.querySelectorAll("p, li, h1, h2, h3, figcaption, summary, .name, .said")) {
    if (one.scrollWidth > one.clientWidth + 1 && getComputedStyle(one).display !== "inline")
      faults.push(`text is cut: ${one.textContent.trim().slice(0, 60)}`);
  }
  return faults;
}

async function openPage(browser, file, width, scheme, faults) {
  const page = await browser.newPage();
  page.on("request", (request) => {
    if (!/^(file|data):/.test(request.url())) faults.push(`requests ${request.url()}`);
  });
  page.on("pageerror", (error) => faults.push(String(error)));
  await page.setViewport({ width, height: 900 });
  await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: scheme }]);
  await page.goto(`file://${path.resolve(file)}`);
  return page;
}

async function inspect(browser, file, width, scheme) {
  const faults = [];
  const page = await openPage(browser, file, width, scheme, faults);
  const name = path.basename(file, ".html");
  await page.screenshot({ path: path.join(out, `${name}-${width}-${scheme}.png`), fullPage: true });
  faults.push(...(await page.evaluate(faultsOfLayout)));
  await page.evaluate(axe);
  const found = await page.evaluate(async () => {
    const { violations, passes } = await axe.run(document);
    return { numPassed: passes.length, violations: violations.map((v) => `axe, ${v.impact}: ${v.id} (${v.nodes[0].target})`) };
  });
  await page.close();
  console.log(`${name} ${width} px ${scheme}: axe passed ${found.numPassed} rules`);
  return [...faults, ...found.violations].map((fault) => `FAULT ${name} ${width} px ${scheme}: ${fault}`);
}

const browser = await puppeteer.launch({ executablePath: chromium, args: ["--no-sandbox"], protocolTimeout: 600_000 });
const faults = [];
for (const file of pages) {
  for (const width of [400, 1280]) for (const scheme of ["light", "dark"]) faults.push(...(await inspect(browser, file, width, scheme)));
  const page = await openPage(browser, file, 1280, "dark", faults);
  await page.pdf({ path: path.join(out, `${path.basename(file, ".html")}.pdf`), format: "A4" });
  await page.close();
}
await browser.close();
faults.forEach((fault) => console.log(fault));
process.exit(faults.length ? 1 : 0);
