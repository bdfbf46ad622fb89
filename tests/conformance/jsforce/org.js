// The org under test, as the environment names it, and what the tests share.
'use strict';

const assert = require('node:assert/strict');
const crypto = require('node:crypto');
const jsforce = require('jsforce');

const org = JSON.parse(process.env.ORG);

function connect(options = {}) {
  const { instance_url: instanceUrl, access_token: accessToken } = org;
  return new jsforce.Connection({ instanceUrl, accessToken, version: '62.0', ...options });
}

// Keys that no other test uses.
const run = crypto.randomBytes(3).toString('hex');
let count = 0;
function key(prefix = 'k') {
  count += 1;
  return `${prefix}-${run}-${count}`;
}

async function refused(promise, errorCode, message, fields) {
  const error = await promise.then(() => assert.fail(`not refused: ${errorCode}`), (reason) => reason);
  assert.equal(error.errorCode, errorCode, `${error.errorCode}: ${error.message}`);
  if (message instanceof RegExp) assert.match(error.message, message);
  else if (message !== undefined) assert.equal(error.message, message);
  if (fields !== undefined) assert.deepEqual(error.data?.fields ?? error.fields, fields);
  return error;
}

// How jobs go on, by the org's control endpoint.
async function pace(changes) {
  const headers = { Authorization: `Bearer ${org.access_token}`, 'Content-Type': 'application/json' };
  const reply = await fetch(`${org.instance_url}/emulator/pace`, { method: 'POST', headers, body: JSON.stringify(changes) });
  assert.equal(reply.status, 200);
}

module.exports = { jsforce, org, connect, key, pace, refused };
