// Discovery: who, what, how much.
'use strict';

const assert = require('node:assert/strict');
const { test } = require('node:test');
const { connect, org, refused } = require('./org');

const conn = connect();

test('identity', async () => {
  const identity = await conn.identity();
  assert.equal(identity.organization_id, org.organization_id);
  assert.equal(identity.username, org.username);
  assert.equal(conn.userInfo.id, identity.user_id);
  assert.equal((await conn.identity()).user_id, identity.user_id);
});

test('versions ascend and resources name their paths', async () => {
  const versions = await conn.requestGet('/services/data');
  const numbers = versions.map((each) => Number(each.version));
  assert.deepEqual(numbers, [...numbers].sort((a, b) => a - b));
  const resources = await conn.requestGet(`${conn._baseUrl()}/`);
  assert.equal(resources.sobjects, '/services/data/v62.0/sobjects');
});

test('limits and the usage header', async () => {
  const limits = await conn.limits();
  assert.ok(limits.DailyApiRequests.Remaining < limits.DailyApiRequests.Max);
  assert.equal(conn.limitInfo.apiUsage.limit, limits.DailyApiRequests.Max);
  const before = conn.limitInfo.apiUsage.used;
  await conn.limits();
  assert.ok(conn.limitInfo.apiUsage.used > before);
});

test('describe, global and of an object', async () => {
  const all = await conn.describeGlobal();
  assert.equal(all.maxBatchSize, 200);
  assert.ok(all.sobjects.some((each) => each.name === 'Customer__c' && each.custom));
  const account = await conn.sobject('Account').describe();
  const name = account.fields.find((each) => each.name === 'Name');
  assert.deepEqual([name.type, name.nillable, name.createable], ['string', false, true]);
  assert.equal(Object.keys(name).length, 57);
  const cached = await conn.sobject('Account').describe$();
  assert.equal(cached, await conn.sobject('Account').describe$());
  assert.equal(conn.sobject('Account').describe$$().name, 'Account');
  await refused(conn.describe('Nope__c'), 'NOT_FOUND', 'The requested resource does not exist');
});

test('record counts', async () => {
  await conn.sobject('Case').create({ Subject: 'counted' });
  const counts = await conn.requestGet('/limits/recordCount?sObjects=Case,Account');
  assert.ok(counts.sObjects.find((each) => each.name === 'Case').count >= 1);
});

test('a bad session is a JSON array with its code', async () => {
  const stranger = connect({ accessToken: '00D000000000000!nobody' });
  await refused(stranger.query('SELECT Id FROM Account'), 'INVALID_SESSION_ID', 'Session expired or invalid');
});

test('an expired session is renewed by the refresh function, and the call goes through', async () => {
  let renewed = 0;
  const lapsed = connect({
    accessToken: '00D000000000000!lapsed',
    refreshFn: (_, done) => {
      renewed += 1;
      done(null, org.access_token);
    },
  });
  assert.ok((await lapsed.query('SELECT Id FROM Organization')).totalSize === 1);
  const job = lapsed.bulk2.createJob({ object: 'Account', operation: 'insert' });
  lapsed.accessToken = '00D000000000000!lapsed-again';
  await job.open();
  await job.abort();
  assert.equal(renewed, 2);
});

test('recent items of an object', async () => {
  assert.ok(Array.isArray(await conn.sobject('Account').recent()));
});
