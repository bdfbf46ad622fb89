// Records: one at a time and in collections.
'use strict';

const assert = require('node:assert/strict');
const { test } = require('node:test');
const { connect, key, refused } = require('./org');

const conn = connect();
const customers = conn.sobject('Customer__c');

test('one record: create, retrieve, update, destroy', async () => {
  const made = await customers.create({ Name: 'one', Amount__c: 12.5, Active__c: false, Day__c: '2024-02-29' });
  assert.deepEqual([made.success, made.errors, made.id.length], [true, [], 18]);
  const record = await customers.retrieve(made.id);
  assert.equal(record.attributes.type, 'Customer__c');
  assert.deepEqual([record.Amount__c, record.Active__c, record.Day__c], [12.5, false, '2024-02-29']);
  const changed = await customers.update({ Id: made.id, Name: 'two', Amount__c: null }, { headers: { 'Sforce-Auto-Assign': 'FALSE' } });
  assert.equal(changed.success, true);
  const again = await customers.record(made.id).retrieve({ fields: ['Name', 'Amount__c'] });
  assert.deepEqual([again.Name, again.Amount__c], ['two', null]);
  assert.equal((await customers.destroy(made.id)).success, true);
  await refused(customers.retrieve(made.id), 'NOT_FOUND', 'The requested resource does not exist');
  await refused(customers.destroy(made.id), 'ENTITY_IS_DELETED', 'entity is deleted', []);
});

test('collections: create, retrieve, update, destroy', async () => {
  const made = await customers.create([{ Name: 'a' }, { Name: 'b', Note__c: 'long' }]);
  const ids = made.map((each) => each.id);
  assert.ok(made.every((each) => each.success));
  const read = await customers.retrieve(ids);
  assert.deepEqual(read.map((each) => each.Name), ['a', 'b']);
  const changed = await customers.update(ids.map((Id, i) => ({ Id, Name: `c${i}` })));
  assert.deepEqual(changed.map((each) => [each.id, each.success]), ids.map((id) => [id, true]));
  assert.deepEqual((await customers.retrieve(ids, { fields: ['Name'] })).map((each) => each.Name), ['c0', 'c1']);
  assert.ok((await customers.destroy(ids, { allOrNone: true })).every((each) => each.success));
  assert.deepEqual(await customers.retrieve(ids), [null, null]);
});

test('more than 200 records are sent in several requests', async () => {
  const many = Array.from({ length: 230 }, (_, i) => ({ Name: `many ${i}`, Code__c: key() }));
  const made = await customers.create(many, { allowRecursive: true });
  assert.equal(made.length, 230);
  assert.ok(made.every((each) => each.success));
  const gone = await customers.destroy(made.map((each) => each.id), { allowRecursive: true });
  assert.equal(gone.filter((each) => each.success).length, 230);
  await refused(customers.create(many), 'EXCEEDED_ID_LIMIT');
});

test('a collection of records of several objects', async () => {
  const made = await conn.create(undefined, [{ type: 'Account', Name: 'mixed' }, { type: 'Customer__c', Name: 'mixed' }]);
  assert.deepEqual(made.map((each) => each.id.slice(0, 1)), ['0', 'a']);
});

test('part of a collection fails, or all of it', async () => {
  const records = [{ Name: 'good' }, { Name: 'bad', Tier__c: 'Tin' }];
  const [good, bad] = await customers.create(records);
  assert.equal(good.success, true);
  assert.deepEqual(bad, {
    success: false,
    errors: [{
      statusCode: 'INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST',
      message: 'Tier: bad value for restricted picklist field: Tin',
      fields: ['Tier__c'],
    }],
  });
  const code = key();
  const none = await customers.create([{ Name: 'good', Code__c: code }, records[1]], { allOrNone: true });
  assert.equal(none[0].errors[0].statusCode, 'ALL_OR_NONE_OPERATION_ROLLED_BACK');
  assert.equal((await conn.query(`SELECT Id FROM Customer__c WHERE Code__c = '${code}'`)).totalSize, 0);
});

test('upsert by external id: one', async () => {
  const Code__c = key();
  const made = await customers.upsert({ Code__c, Name: 'new' }, 'Code__c');
  assert.deepEqual([made.success, made.created], [true, true]);
  const again = await customers.upsert({ Code__c, Name: 'newer' }, 'Code__c');
  assert.deepEqual([again.id, again.created], [made.id, false]);
  const old = connect({ version: '42.0' });
  const silent = await old.sobject('Customer__c').upsert({ Code__c, Name: 'newest' }, 'Code__c');
  assert.deepEqual([silent.success, silent.id], [true, undefined]);
  assert.equal((await customers.retrieve(made.id)).Name, 'newest');
});

test('upsert by external id: two records match', async () => {
  const Loose__c = key();
  const made = await customers.create([{ Loose__c }, { Loose__c }]);
  const error = await customers.upsert({ Loose__c, Name: 'x' }, 'Loose__c').catch((reason) => reason);
  assert.equal(error.name, 'MULTIPLE_CHOICES');
  assert.deepEqual(error.content, made.map((each) => `/services/data/v62.0/sobjects/Customer__c/${each.id}`));
});

test('upsert by external id: a collection', async () => {
  const codes = [key(), key(), key()];
  await customers.create({ Code__c: codes[0] });
  const results = await customers.upsert(codes.map((Code__c) => ({ Code__c, Name: 'u' })), 'Code__c');
  assert.deepEqual(results.map((each) => each.created), [false, true, true]);
  const twice = await customers.upsert([{ Code__c: codes[0] }, { Code__c: codes[0] }], 'Code__c');
  assert.ok(twice.every((each) => !each.success && each.errors[0].statusCode === 'DUPLICATE_VALUE'));
  const fresh = key();
  const none = await customers.upsert([{ Code__c: fresh, Name: 'n' }, { Code__c: codes[1], Tier__c: 'Tin' }], 'Code__c', { allOrNone: true });
  assert.deepEqual(none.map((each) => each.success), [false, false]);
  assert.equal((await conn.query(`SELECT Id FROM Customer__c WHERE Code__c = '${fresh}'`)).totalSize, 0);
});

test('a parent by its external id, and a lookup cleared', async () => {
  const Code__c = key().slice(0, 20);
  const parent = await conn.sobject('Account').create({ Name: 'parent', Code__c });
  const child = await customers.create({ Name: 'child', Account__r: { Code__c } });
  assert.equal((await customers.retrieve(child.id)).Account__c, parent.id);
  await customers.update({ Id: child.id, Account__c: null });
  assert.equal((await customers.retrieve(child.id)).Account__c, null);
});

test('refusals carry their code, message and fields', async () => {
  const accounts = conn.sobject('Account');
  await refused(accounts.create({}), 'REQUIRED_FIELD_MISSING', 'Required fields are missing: [Name]', ['Name']);
  await refused(accounts.create({ Name: 'x', Nope__c: 1 }), 'INVALID_FIELD', "No such column 'Nope__c' on sobject of type Account");
  await refused(conn.sobject('Nope__c').create({}), 'NOT_FOUND', 'The requested resource does not exist');
  await refused(accounts.retrieve('001000000000000AAA'), 'NOT_FOUND');
  await refused(accounts.update({ Id: '001000000000000AAA', Name: 'x' }), 'NOT_FOUND');
  const Code__c = key();
  const first = await customers.create({ Code__c });
  await refused(customers.create({ Code__c }), 'DUPLICATE_VALUE', `duplicate value found: Code__c duplicates value on record with id: ${first.id}`);
});

test('updated and deleted records of a span', async () => {
  const start = new Date(Date.now() - 3600e3);
  const end = new Date(Date.now() + 3600e3);
  const [kept, gone] = await customers.create([{ Name: 'kept' }, { Name: 'gone' }]);
  await customers.destroy(gone.id);
  const updated = await customers.updated(start, end);
  assert.ok(updated.ids.includes(kept.id) && !updated.ids.includes(gone.id));
  assert.ok(Date.parse(updated.latestDateCovered) > start.getTime());
  const deleted = await customers.deleted(start.toISOString(), end.toISOString());
  assert.ok(deleted.deletedRecords.some((each) => each.id === gone.id && Date.parse(each.deletedDate) > start.getTime()));
  assert.ok(Date.parse(deleted.earliestDateAvailable) < Date.now());
});
