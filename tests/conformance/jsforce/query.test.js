// Queries: pages, streams, the builder, what is deleted.
'use strict';

const assert = require('node:assert/strict');
const { before, test } = require('node:test');
const { connect, key, refused } = require('./org');

const conn = connect();
const mark = key('plan');
const ROWS = 4321;

before(async () => {
  const header = 'Name,Code__c,Plan__c,Amount__c\n';
  const rows = Array.from({ length: ROWS }, (_, i) => `row ${i},${key()},${mark},${i}\n`);
  const load = { object: 'Customer__c', operation: 'insert', input: header + rows.join(''), pollInterval: 50 };
  const results = await conn.bulk2.loadAndWaitForResults(load);
  assert.equal(results.successfulResults.length, ROWS);
});

test('pages by queryMore', async () => {
  const first = await conn.query(`SELECT Name, Amount__c FROM Customer__c WHERE Plan__c = '${mark}' ORDER BY Amount__c`);
  assert.deepEqual([first.totalSize, first.done, first.records.length], [ROWS, false, 2000]);
  const second = await conn.queryMore(first.nextRecordsUrl);
  const third = await conn.queryMore(second.nextRecordsUrl);
  assert.deepEqual([second.records.length, third.records.length, third.done], [2000, 321, true]);
  assert.equal(third.nextRecordsUrl, undefined);
  const amounts = [first, second, third].flatMap((page) => page.records.map((each) => each.Amount__c));
  assert.deepEqual(amounts, Array.from({ length: ROWS }, (_, i) => i));
});

test('a smaller page by its header', async () => {
  const headers = { 'Sforce-Query-Options': 'batchSize=500' };
  const page = await conn.query(`SELECT Id FROM Customer__c WHERE Plan__c = '${mark}'`, { headers });
  assert.equal(page.records.length, 500);
  await refused(conn.queryMore('01g000000000000AAA-2000'), 'INVALID_QUERY_LOCATOR');
});

test('a stream of all records', async () => {
  const query = conn.query(`SELECT Name FROM Customer__c WHERE Plan__c = '${mark}'`);
  const seen = [];
  await new Promise((resolve, reject) => {
    query.on('record', (record) => seen.push(record.Name));
    query.on('end', resolve).on('error', reject);
    query.run({ autoFetch: true, maxFetch: 10000 });
  });
  assert.deepEqual([seen.length, new Set(seen).size, query.totalFetched], [ROWS, ROWS, ROWS]);
  const some = await conn.query(`SELECT Id FROM Customer__c WHERE Plan__c = '${mark}'`, { autoFetch: true, maxFetch: 2500 });
  assert.equal(some.records.length, 2500);
});

test('a stream of all records as CSV', async () => {
  const source = conn.query(`SELECT Name, Amount__c FROM Customer__c WHERE Plan__c = '${mark}' ORDER BY Amount__c`);
  const chunks = [];
  for await (const chunk of source.stream('csv')) chunks.push(chunk);
  const lines = Buffer.concat(chunks.map((each) => Buffer.from(each))).toString().trim().split('\n');
  assert.deepEqual([lines.length, lines[0], lines[1]], [ROWS + 1, 'Name,Amount__c', 'row 0,0']);
});

test('the query builder', async () => {
  const found = await conn.sobject('Customer__c')
    .find({ $and: [{ Plan__c: mark }, { Amount__c: { $gte: 10 } }, { Amount__c: { $lt: 20 } }] }, 'Name, Amount__c, Account__r.Name')
    .sort({ Amount__c: -1 })
    .limit(3)
    .skip(1);
  assert.deepEqual(found.map((each) => [each.Amount__c, each.Account__r]), [[18, null], [17, null], [16, null]]);
  const like = await conn.sobject('Customer__c').find({ Plan__c: mark, Name: { $like: 'row 432%' } }, ['Id', 'Name']);
  assert.equal(like.length, 2);
  const among = await conn.sobject('Customer__c').find({ Plan__c: mark, Name: { $in: ['row 1', 'row 2', "it's"] } }, { Name: 1 });
  assert.deepEqual(among.map((each) => each.Name).sort(), ['row 1', 'row 2']);
  const every = await conn.sobject('Customer__c').find({ Plan__c: mark, Name: 'row 7' }, '*');
  assert.equal(every[0].Amount__c, 7);
  assert.equal(await conn.sobject('Customer__c').count({ Plan__c: mark }), ROWS);
  const one = await conn.sobject('Customer__c').findOne({ Plan__c: mark }, 'Id');
  assert.equal(one.Id.length, 18);
});

test('children inside their parents', async () => {
  const account = await conn.sobject('Account').create({ Name: mark });
  await conn.sobject('Customer__c').create([{ Name: 'x', Account__c: account.id }, { Name: 'y', Account__c: account.id }]);
  const found = await conn.sobject('Account')
    .find({ Name: mark }, 'Id')
    .include('Customers__r')
    .select('Name')
    .orderby('Name', 'DESC')
    .end();
  assert.deepEqual(found[0].Customers__r.records.map((each) => each.Name), ['y', 'x']);
});

test('dates and dateTimes as literals', async () => {
  const today = conn.sobject('Customer__c').find({ Plan__c: mark, CreatedDate: require('jsforce').Date.LAST_N_DAYS(2) }, 'Id').limit(1);
  assert.equal((await today).length, 1);
  const since = require('jsforce').SfDate.toDateTimeLiteral(new Date(Date.now() - 3600e3));
  assert.equal((await conn.sobject('Customer__c').find({ Plan__c: mark, CreatedDate: { $gt: since } }, 'Id').limit(1)).length, 1);
});

test('update and destroy what a query finds', async () => {
  const plan = key('plan');
  await conn.sobject('Customer__c').create([{ Plan__c: plan, Name: 'a' }, { Plan__c: plan, Name: 'b' }]);
  const changed = await conn.sobject('Customer__c').find({ Plan__c: plan }).update({ Name: '${Name}!' });
  assert.ok(changed.every((each) => each.success));
  const names = await conn.sobject('Customer__c').find({ Plan__c: plan }, 'Name').sort('Name');
  assert.deepEqual(names.map((each) => each.Name), ['a!', 'b!']);
  const gone = await conn.sobject('Customer__c').find({ Plan__c: plan }).destroy();
  assert.equal(gone.length, 2);
  const left = await conn.query(`SELECT Id FROM Customer__c WHERE Plan__c = '${plan}'`);
  const all = await conn.query(`SELECT Id, IsDeleted FROM Customer__c WHERE Plan__c = '${plan}'`, { scanAll: true });
  assert.deepEqual([left.totalSize, all.totalSize, all.records[0].IsDeleted], [0, 2, true]);
});

test('refused queries', async () => {
  await refused(conn.query('SELEKT Id FROM Account'), 'MALFORMED_QUERY');
  const column = await refused(conn.query('SELECT Bacon__c FROM Account LIMIT 2'), 'INVALID_FIELD');
  assert.match(column.message, /ERROR at Row:1:Column:8\nNo such column 'Bacon__c' on entity 'Account'/);
  await refused(conn.query('SELECT Id FROM XYZZY'), 'INVALID_TYPE');
});
