// @huggingface/hub: the list, a file in part and whole, the whole repo. Prints what came, as sha256.
const { createHash } = require("node:crypto");
const { readFile } = require("node:fs/promises");
const { downloadFile, listFiles, modelInfo, snapshotDownload } = require("@huggingface/hub");

const [hubUrl, repo, path, start, stop, cacheDir] = process.argv.slice(2);
const sha256 = (buffer) => createHash("sha256").update(Buffer.from(buffer)).digest("hex");

async function main() {
  const files = {};
  const blob = await downloadFile({ repo, path, hubUrl });
  const part = await blob.slice(Number(start), Number(stop)).arrayBuffer();
  const folder = await snapshotDownload({ repo, hubUrl, cacheDir });
  for await (const file of listFiles({ repo, hubUrl, recursive: true }))
    if (file.type === "file") files[file.path] = sha256(await readFile(`${folder}/${file.path}`));
  const info = await modelInfo({ name: repo, hubUrl, additionalFields: ["sha"] });
  console.log(JSON.stringify({ sha: info.sha, part: sha256(part), whole: sha256(await blob.arrayBuffer()), files }));
}

main();
