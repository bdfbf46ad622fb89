// Bulk API 2.0: whole loads, jobs step by step, queries as streams.
'use strict';

const assert = require('node:assert/strict');
const { Readable } = require('node:stream');
const { test } = require('node:test');
const { connect, key, pace, refused } = require('./org');

const conn = connect();
conn.bulk2.pollInterval = 50;
const object = 'Customer__c';

test('insert, update, upsert, delete', async () => {
  const codes = [key(), key(), key()];
  const rows = codes.map((Code__c, i) => ({ Code__c, Name: `é "${i}",\n`, Active__c: i === 1, Amount__c: null }));
  const inserted = await conn.bulk2.loadAndWaitForResults({ object, operation: 'insert', input: rows });
  assert.equal(inserted.successfulResults.length, 3);
  assert.deepEqual([inserted.failedResults, inserted.unprocessedRecords], [[], []]);
  const ids = codes.map((code) => inserted.successfulResults.find((each) => each.Code__c === code).sf__Id);
  assert.ok(inserted.successfulResults.every((each) => each.sf__Created === 'true'));
  const stored = await conn.sobject(object).retrieve(ids);
  assert.deepEqual(stored.map((each) => [each.Name, each.Active__c]), [['é "0",', false], ['é "1",', true], ['é "2",', false]]);
  const updated = await conn.bulk2.loadAndWaitForResults({
    object, operation: 'update', input: ids.map((Id, i) => ({ Id, Plan__c: 'p', Tier__c: i === 2 ? 'Tin' : null })),
  });
  assert.deepEqual([updated.successfulResults.length, updated.failedResults.length], [2, 1]);
  assert.equal(updated.failedResults[0].sf__Id, ids[2]);
  assert.equal(
    updated.failedResults[0].sf__Error,
    'INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST:Tier: bad value for restricted picklist field: Tin:Tier__c --',
  );
  const upserted = await conn.bulk2.loadAndWaitForResults({
    object, operation: 'upsert', externalIdFieldName: 'Code__c',
    input: [{ Code__c: codes[0], Name: 'again' }, { Code__c: key(), Name: 'new' }],
  });
  assert.deepEqual(upserted.successfulResults.map((each) => each.sf__Created).sort(), ['false', 'true']);
  const deleted = await conn.bulk2.loadAndWaitForResults({ object, operation: 'delete', input: ids.map((Id) => ({ Id })) });
  assert.equal(deleted.successfulResults.length, 3);
  const twice = await conn.bulk2.loadAndWaitForResults({ object, operation: 'delete', input: ids.map((Id) => ({ Id })) });
  assert.deepEqual(twice.failedResults.map((each) => each.sf__Error), Array(3).fill('ENTITY_IS_DELETED:entity is deleted:--'));
});

test('a job step by step, from a stream of CSV', async () => {
  const job = conn.bulk2.createJob({ object, operation: 'insert', lineEnding: 'CRLF', columnDelimiter: 'PIPE' });
  const opened = await job.open();
  assert.deepEqual([opened.state, opened.contentType, opened.id.slice(0, 3)], ['Open', 'CSV', '750']);
  const lines = ['Name|Code__c', ...Array.from({ length: 500 }, (_, i) => `s${i}|${key()}`), ''];
  await job.uploadData(Readable.from([lines.join('\r\n')]));
  await job.close();
  const states = [];
  job.on('inProgress', (info) => states.push(info.state));
  await job.poll(20, 20000);
  assert.ok(states.every((state) => ['UploadComplete', 'InProgress'].includes(state)));
  const info = await job.check();
  assert.deepEqual([info.state, info.numberRecordsProcessed, info.numberRecordsFailed], ['JobComplete', 500, 0]);
  const raw = await job.getSuccessfulResults(true);
  assert.ok(raw.startsWith('"sf__Id"|"sf__Created"|Name|Code__c\r\n'), raw.slice(0, 60));
  assert.equal((await conn.bulk2.job('ingest', { id: job.id }).check()).id, job.id);
  await job.delete();
  await refused(job.check(), 'NOT_FOUND', 'The requested resource does not exist');
});

test('abort, and the job states that refuse', async () => {
  const job = conn.bulk2.createJob({ object, operation: 'insert' });
  await job.open();
  await assert.rejects(job.poll(10, 1000), /still open/);
  await refused(job.delete(), 'API_ERROR');
  await job.abort();
  assert.equal((await job.check()).state, 'Aborted');
  await assert.rejects(job.poll(10, 1000), /aborted/);
  await refused(job.uploadData('Name\nx\n'), 'INVALIDJOBSTATE');
  await job.delete();
});

test('a header that is no field fails the job, and every row is unprocessed', async () => {
  const job = conn.bulk2.createJob({ object, operation: 'insert' });
  await job.open();
  await job.uploadData('Name,Nope__c\na,1\nb,2\n');
  await job.close();
  await assert.rejects(job.poll(20, 20000), /InvalidBatch : Field name not found : Nope__c/);
  const results = await job.getAllResults();
  assert.deepEqual([results.successfulResults, results.failedResults], [[], []]);
  assert.deepEqual(results.unprocessedRecords.map((each) => ({ ...each })), [{ Name: 'a', Nope__c: '1' }, { Name: 'b', Nope__c: '2' }]);
});

test('an empty load completes', async () => {
  const results = await conn.bulk2.loadAndWaitForResults({ object, operation: 'insert', input: 'Name\n' });
  assert.deepEqual(results, { successfulResults: [], failedResults: [], unprocessedRecords: [] });
});

test('what a job may not be', async () => {
  const upsert = { object, operation: 'upsert', externalIdFieldName: 'Plan__c' };
  await refused(
    conn.bulk2.createJob(upsert).open(), 'INVALIDJOB',
    'InvalidJob : Field name provided, Plan__c does not match an External ID, Salesforce Id, or indexed field for Customer__c',
  );
  await refused(conn.bulk2.createJob({ object, operation: 'hardDelete' }).open(), 'FEATURENOTENABLED');
});

test('a query as a stream of records, and of CSV', async () => {
  const plan = key('plan');
  const rows = Array.from({ length: 2500 }, (_, i) => `q${i},${plan},${i / 4}\n`).join('');
  await conn.bulk2.loadAndWaitForResults({ object, operation: 'insert', input: `Name,Plan__c,Amount__c\n${rows}` });
  const stream = await conn.bulk2.query(`SELECT Id, Name, Amount__c FROM Customer__c WHERE Plan__c = '${plan}' ORDER BY Amount__c`);
  const records = await stream.toArray();
  assert.equal(records.length, 2500);
  assert.deepEqual(Object.keys(records[0]), ['Id', 'Name', 'Amount__c']);
  assert.deepEqual([records[5].Name, records[5].Amount__c], ['q5', '1.25']);
  await conn.sobject(object).destroy(records[0].Id);
  const less = await (await conn.bulk2.query(`SELECT Id FROM Customer__c WHERE Plan__c = '${plan}'`)).toArray();
  const all = await (await conn.bulk2.query(`SELECT Id FROM Customer__c WHERE Plan__c = '${plan}'`, { scanAll: true })).toArray();
  assert.deepEqual([less.length, all.length], [2499, 2500]);
});

test('a query job step by step: look, results, abort, delete', async () => {
  await conn.sobject('Account').create({ Name: 'queried' });
  const query = { operation: 'query', query: "SELECT Name FROM Account WHERE Name = 'queried'" };
  const made = await conn.requestPost('/jobs/query', query);
  const job = conn.bulk2.job('query', { id: made.id });
  await job.poll(20, 20000);
  assert.equal((await job.check()).numberRecordsProcessed, 1);
  assert.deepEqual(await (await job.result()).toArray(), [{ Name: 'queried' }]);
  await refused(job.abort(), 'INVALIDJOBSTATE');
  await job.delete();
  await refused(job.check(), 'NOT_FOUND');
  await pace({ queue_s: 60 });
  const waiting = conn.bulk2.job('query', { id: (await conn.requestPost('/jobs/query', query)).id });
  assert.equal((await waiting.abort()).state, 'Aborted');
  await pace({ queue_s: 0 });
});

test('query jobs that are refused', async () => {
  await refused(conn.bulk2.query('SELECT Name, COUNT(Id) FROM Account GROUP BY Name'), 'API_ERROR', /Aggregate/);
  await refused(conn.bulk2.query('SELECT Id FROM Nope__c'), 'INVALID_TYPE', /Nope__c/);
});
