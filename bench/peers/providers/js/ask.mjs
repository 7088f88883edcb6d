// Runs OpenFeature's public OFREP providers for JavaScript, server and web, against a server of ours. Each line of the
// standard input is a command, each line of the output its answer: see ../js_test.go.
import { createInterface } from 'node:readline';
import * as server from '@openfeature/server-sdk';
import * as web from '@openfeature/web-sdk';
import { OFREPProvider } from '@openfeature/ofrep-provider';
import { OFREPWebProvider } from '@openfeature/ofrep-web-provider';

const { BASE, SERVER_KEY, BROWSER_KEY, ORIGIN } = process.env;

// Node has no EventSource; this is what a browser's does, as far as the provider looks at it.
globalThis.EventSource = class {
  constructor(url) {
    this.readyState = 0;
    this.controller = new AbortController();
    this.run(url);
  }
  addEventListener(kind, fn) {
    this['on' + kind] = fn;
  }
  removeEventListener(kind) {
    this['on' + kind] = undefined;
  }
  close() {
    this.readyState = 2;
    this.controller.abort();
  }
  async run(url) {
    while (this.readyState !== 2) {
      try {
        const res = await fetch(url, { headers: { Origin: ORIGIN }, signal: this.controller.signal });
        if (res.status !== 200) {
          this.readyState = 2;
        } else {
          this.readyState = 1;
          this.onopen?.({});
          let text = '';
          for await (const part of res.body) {
            text += Buffer.from(part).toString();
            for (let end; (end = text.indexOf('\n\n')) >= 0; text = text.slice(end + 2)) {
              const data = text.slice(0, end).split('\n').find((line) => line.startsWith('data: '));
              if (data) this.onmessage?.({ data: data.slice(6) });
            }
          }
        }
      } catch {
        // the connection is lost: once more
      }
      if (this.readyState === 2) break;
      this.readyState = 0;
      this.onerror?.({});
      await new Promise((done) => setTimeout(done, 50));
    }
    if (!this.controller.signal.aborted) this.onerror?.({});
  }
};

// Browsers tell where a page comes from; Node's fetch does not.
const fetchAsPage = (url, init) => {
  const request = new Request(url, init);
  request.headers.set('Origin', ORIGIN);
  return fetch(request);
};

const attributes = { targetingKey: 'user', level: 'high' };
let client, page;

const commands = {
  async start() {
    await server.OpenFeature.setProviderAndWait(new OFREPProvider({ baseUrl: BASE, headers: [['Authorization', 'Bearer ' + SERVER_KEY]] }));
    client = server.OpenFeature.getClient();
    await web.OpenFeature.setContext(attributes);
    await web.OpenFeature.setProviderAndWait(
      new OFREPWebProvider({ baseUrl: BASE, headers: [['X-API-Key', BROWSER_KEY]], fetchImplementation: fetchAsPage, cacheMode: 'disabled' }),
    );
    page = web.OpenFeature.getClient();
    return 'ok';
  },
  async values() {
    const show = (d) => [d.value, d.reason, d.errorCode ?? ''];
    return {
      bool: show(await client.getBooleanDetails('bool', false, attributes)),
      text: show(await client.getStringDetails('a/text', 'default', attributes)),
      int: show(await client.getNumberDetails('int', 0, attributes)),
      object: show(await client.getObjectDetails('object', {}, attributes)),
      rule: show(await client.getStringDetails('rule', 'default', attributes)),
      off: show(await client.getBooleanDetails('off', true, attributes)),
      none: show(await client.getBooleanDetails('none', true, attributes)),
      pageBool: show(page.getBooleanDetails('bool', false)),
      pageText: show(page.getStringDetails('a/text', 'default')),
      pageRule: show(page.getStringDetails('rule', 'default')),
      pageOff: show(page.getBooleanDetails('off', true)),
      pageHidden: show(page.getStringDetails('hidden', 'default')),
    };
  },
  async text() {
    return [await client.getStringValue('a/text', 'default', attributes), page.getStringValue('a/text', 'default')];
  },
  async level(value) {
    await web.OpenFeature.setContext({ ...attributes, level: value });
    return page.getStringValue('rule', 'default');
  },
};

for await (const line of createInterface({ input: process.stdin })) {
  const [name, ...args] = line.split(' ');
  let answer;
  try {
    answer = await commands[name](...args);
  } catch (err) {
    answer = { error: String(err) };
  }
  console.log(JSON.stringify(answer));
}
process.exit(0);
