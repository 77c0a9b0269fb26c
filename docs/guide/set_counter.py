"""Counts the sync sets that name each cluster. Standard library only; start as many as you like. API_URL, API_TOKEN."""
import json, os, socket, time, urllib.request

API, TOKEN = os.environ.get("API_URL", "http://127.0.0.1:7070"), os.environ.get("API_TOKEN", "none")
ME = {"worker": f"{socket.gethostname()}.{os.getpid()}", "max": 16}

def call(method, path, body=None, kind="application/json", **headers):
    headers |= {"Content-Type": kind, "Authorization": "Bearer " + TOKEN}
    request = urllib.request.Request(f"{API}/v1/{path}", body and json.dumps(body).encode(), headers, method=method)
    with urllib.request.urlopen(request, timeout=40) as answer: return json.load(answer)

def work(claim):
    if claim["kind"] == "map":  # changed sync sets: all clusters that they name now or named before
        sets = [state for event in claim["events"] for state in (event["before"], event["object"]) if state]
        return {"enqueue": [{"namespace": one["namespace"], "name": name} for one in sets for name in one["clusterRefs"]]}
    if claim["object"] and "deletedAt" not in claim["object"]:
        sets = call("GET", f"syncsets?namespace={claim['namespace']}")["items"]  # a page; longer lists have "continue"
        count = sum(claim["name"] in one["clusterRefs"] for one in sets)
        patch = {"status": {"sets": {"matched": count, "applied": 0, "failing": 0, "pending": count}}}
        path = f"clusters/{claim['namespace']}/{claim['name']}/status"
        call("PATCH", path, patch, "application/merge-patch+json", Claim=claim["token"])  # refused once the claim is lost
    return {}

def serve(**asked):
    for claim in (answer := call("POST", "controllers/py-counter/claims", {**ME, **asked}))["claims"]:
        try: result = {"result": "done", **work(claim)}
        except Exception as error: result = {"result": "error", "message": str(error)[:1000]}  # again, with back-off
        call("POST", "controllers/py-counter/claims/done", {"results": [{"token": claim["token"], **result}]})
    return answer

if __name__ == "__main__":
    call("PUT", "controllers/py-counter", {"type": "clusters", "watches": ["syncsets"]})
    while True:
        try: serve(waitSeconds=25)
        except OSError: time.sleep(1)  # the API is away; what was claimed is free when the lease ends
