// What jsforce can do and this org can't: refused by name, each as docs/emulator-conformance.md lists it.
'use strict';

const assert = require('node:assert/strict');
const { test } = require('node:test');
const { jsforce, org, connect } = require('./org');

const conn = connect();
const account = conn.sobject('Account');
const LEFT_OUT = {
  'SOSL search': () => conn.search('FIND {x} IN ALL FIELDS'),
  'recent items of all objects': () => conn.recent(),
  'tabs and theme': () => conn.tabs(),
  'query plans': () => account.find({}).explain(),
  'layouts': () => account.layouts(),
  'list views': () => account.listviews(),
  'quick actions': () => account.quickActions(),
  'Apex REST': () => conn.apex.get('/Mine'),
  'anonymous Apex and the Tooling API': () => conn.tooling.executeAnonymous('Integer i = 1;'),
  'Chatter': () => conn.chatter.resource('/feeds').retrieve(),
  'reports and dashboards': () => conn.analytics.reports(),
  'Bulk API 1.0': () => conn.bulk.load('Account', 'insert', [{ Name: 'x' }]),
  'Metadata API': () => conn.metadata.list([{ type: 'CustomObject' }]),
  'login by SOAP': () => new jsforce.Connection({ loginUrl: org.instance_url }).login(org.username, org.password),
  'the web server flow of OAuth': () => new jsforce.OAuth2({
    loginUrl: org.instance_url, clientId: org.client_id, redirectUri: 'https://app.example/callback',
  }).requestToken('code'),
  'composite requests': () => conn.requestPost('/composite', { compositeRequest: [] }),
};

for (const [name, call] of Object.entries(LEFT_OUT)) {
  test(name, async () => {
    const error = await Promise.resolve().then(call).then(() => assert.fail('not refused'), (reason) => reason);
    assert.match(`${error.errorCode} ${error.message}`, /does not emulate|NOT_EMULATED|login\(\) is disabled by default in this org/);
  });
}
