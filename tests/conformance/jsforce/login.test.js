// Logins: each flow of jsforce's own OAuth2, sessions that end, https.
'use strict';

const assert = require('node:assert/strict');
const crypto = require('node:crypto');
const { test } = require('node:test');
const { jsforce, org, connect, refused } = require('./org');

const client = { clientId: org.client_id, clientSecret: org.client_secret, loginUrl: org.instance_url };
const JWT = 'urn:ietf:params:oauth:grant-type:jwt-bearer';
const { privateKey } = crypto.generateKeyPairSync('rsa', { modulusLength: 2048 });

function assertion(claims = {}) {
  const part = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');
  const exp = Math.floor(Date.now() / 1000) + 180;
  const whole = { iss: org.client_id, sub: org.username, aud: org.instance_url, exp, ...claims };
  const signed = `${part({ alg: 'RS256' })}.${part(whole)}`;
  return `${signed}.${crypto.sign('sha256', Buffer.from(signed), privateKey).toString('base64url')}`;
}

function stranger(oauth2 = client, options = {}) {
  return new jsforce.Connection({ oauth2, instanceUrl: org.instance_url, version: '62.0', ...options });
}

async function isHere(conn) {
  assert.equal((await conn.query('SELECT Id FROM Organization')).records[0].Id, org.organization_id);
}

test('JWT bearer', async () => {
  const conn = stranger({ loginUrl: org.instance_url });
  const info = await conn.authorize({ grant_type: JWT, assertion: assertion() });
  assert.equal(info.organizationId, org.organization_id);
  assert.equal(conn.instanceUrl, org.instance_url);
  assert.notEqual(conn.accessToken, org.access_token);
  await isHere(conn);
  const late = stranger().authorize({ grant_type: JWT, assertion: assertion({ exp: 1_600_000_000 }) });
  await assert.rejects(late, { name: 'invalid_grant', message: 'expired authorization code' });
  const other = stranger().authorize({ grant_type: JWT, assertion: assertion({ sub: 'nobody@example.com' }) });
  await assert.rejects(other, { name: 'invalid_grant' });
});

test('client credentials', async () => {
  const conn = stranger();
  await conn.authorize({ grant_type: 'client_credentials' });
  await isHere(conn);
  const wrong = stranger({ ...client, clientSecret: 'x' }).authorize({ grant_type: 'client_credentials' });
  await assert.rejects(wrong, { name: 'invalid_client', message: 'invalid client credentials' });
});

test('username, password and security token', async () => {
  const conn = stranger();
  const info = await conn.login(org.username, org.password + org.security_token);
  assert.equal(info.organizationId, org.organization_id);
  await isHere(conn);
  await assert.rejects(stranger().login(org.username, 'x'), { name: 'invalid_grant', message: 'authentication failure' });
});

test('a session that ended is renewed by the refresh token, in the middle of a query', async () => {
  const conn = stranger(client, { accessToken: '00D000000000000!lapsed', refreshToken: org.refresh_token });
  const seen = [];
  conn.on('refresh', (token) => seen.push(token));
  await isHere(conn);
  await conn.oauth2.revokeToken(conn.accessToken);
  await isHere(conn);
  assert.equal(seen.length, 2);
  assert.notEqual(seen[0], seen[1]);
  await assert.rejects(conn.oauth2.refreshToken('x'), { name: 'invalid_grant', message: 'expired access/refresh token' });
});

test('logout ends the session', async () => {
  const conn = stranger();
  await conn.authorize({ grant_type: 'client_credentials' });
  const { accessToken } = conn;
  await conn.logout();
  assert.equal(conn.accessToken, null);
  await refused(connect({ accessToken }).query('SELECT Id FROM Account'), 'INVALID_SESSION_ID');
});

test('https, with the authority that NODE_EXTRA_CA_CERTS names', async () => {
  const conn = stranger({ ...client, loginUrl: org.https_url }, { instanceUrl: org.https_url });
  await conn.authorize({ grant_type: 'client_credentials' });
  assert.equal(conn.instanceUrl, org.https_url);
  await isHere(conn);
  const made = await conn.sobject('Account').create(Array.from({ length: 3 }, (_, i) => ({ Name: `https ${i}` })));
  assert.ok(made.every((each) => each.success));
  const input = made.map(({ id }) => ({ Id: id }));
  const load = { object: 'Account', operation: 'delete', input, pollInterval: 50 };
  assert.equal((await conn.bulk2.loadAndWaitForResults(load)).successfulResults.length, 3);
});
