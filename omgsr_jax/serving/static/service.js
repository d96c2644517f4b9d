// Requests to the service, and how it refuses.

export class Refused extends Error {
  constructor(status, sentence, retryAfter) {
    super(sentence);
    this.status = status;
    this.retryAfter = retryAfter;
  }
}

export const wait = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

export async function call(path, options) {
  const response = await fetch(path, options);
  if (response.ok) return response;
  const answer = await response.json().catch(() => ({}));
  const later = Number(response.headers.get("Retry-After")) || 0;
  throw new Refused(response.status, answer.error || `the service answered ${response.status}`, later);
}

// fetch does not tell how much of an upload is sent; this does.
export function send(path, file, onShare) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", path);
    request.responseType = "json";
    request.setRequestHeader("Content-Type", "application/octet-stream");
    request.upload.onprogress = (event) => event.lengthComputable && onShare(event.loaded / event.total);
    request.onerror = () => reject(new Refused(0, "the service cannot be reached", 5));
    request.onload = () => {
      const answer = request.response || {};
      if (request.status === 202) return resolve(answer);
      const later = Number(request.getResponseHeader("Retry-After")) || 0;
      reject(new Refused(request.status, answer.error || `the service answered ${request.status}`, later));
    };
    request.send(file);
  });
}
