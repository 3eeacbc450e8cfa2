"""The service over a socket at ml-1m's size: seconds to the first answer, memory, lists a second, waits at four fifths of that, newcomers with reasons; writes results/service.md"""
import asyncio,json,resource,signal,socket,subprocess,sys,tempfile,time,urllib.request
from statistics import median,quantiles
from urllib.parse import quote
from report import Report,settings
from fastrec.all import *

serve = "from fastrec.serve import run; run({0!r}, port={1}, workers={2}, log_level='warning')"

class Service:
    "`workers` processes that serve `folder`, and the seconds to the first answer"
    def __init__(self, folder, workers):
        with socket.create_server(('127.0.0.1',0)) as s: self.port = s.getsockname()[1]
        start = time.perf_counter()
        self.process = subprocess.Popen([sys.executable, '-c', serve.format(str(folder), self.port, workers)], cwd='/')
        while True:
            try: self.get('/recommend?user=1')
            except OSError: time.sleep(.01)
            else: break
        self.seconds = time.perf_counter()-start

    def get(self, path): return urllib.request.urlopen(f'http://127.0.0.1:{self.port}{path}', timeout=10).read()

    def megabytes(self):
        "Resident memory of the process"
        pages = int(Path(f'/proc/{self.process.pid}/statm').read_text().split()[1])
        return pages*resource.getpagesize()/1e6

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait()

def request(path, body=None):
    "The bytes of a request"
    data = b'' if body is None else json.dumps(body).encode()
    head = f'{"GET" if body is None else "POST"} {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(data)}\r\n\r\n'
    return head.encode()+data

async def ask(connection, data):
    "Send `data`, and read the answer"
    reader,writer = connection
    writer.write(data)
    head = await reader.readuntil(b'\r\n\r\n')
    length = int(head.lower().split(b'content-length: ')[1].split(b'\r\n')[0])
    await reader.readexactly(length)
    assert head.startswith(b'HTTP/1.1 200'), head

async def most_a_second(port, requests, n, seconds):
    "Answers a second to `n` clients who ask again at once"
    count,stop = 0,time.perf_counter()+seconds
    async def client():
        nonlocal count
        connection = await asyncio.open_connection('127.0.0.1', port)
        while time.perf_counter()<stop:
            await ask(connection, next(requests))
            count += 1
        connection[1].close()
    await asyncio.gather(*[client() for _ in range(n)])
    return count/seconds

async def waits(port, requests, rate, seconds, n=64):
    "Milliseconds from when each of `rate` requests a second is due, whether or not others have been answered, to its answer"
    free,res = asyncio.Queue(),[]
    for _ in range(n): free.put_nowait(await asyncio.open_connection('127.0.0.1', port))
    async def one(due):
        connection = await free.get()
        await ask(connection, next(requests))
        res.append(1000*(time.perf_counter()-due))
        free.put_nowait(connection)
    begin,asked = time.perf_counter(),[]
    for k in range(int(rate*seconds)):
        due = begin+k/rate
        await asyncio.sleep(max(0, due-time.perf_counter()))
        asked.append(asyncio.create_task(one(due)))
    await asyncio.gather(*asked)
    while free.qsize(): free.get_nowait()[1].close()
    return res

def lists(users):
    for o in itertools.cycle(users): yield request(f'/recommend?user={o}')

def newcomers(items, rng):
    "Ten ratings each, and two reasons wanted for each place"
    while True:
        some = rng.choice(items, 10, replace=False)
        yield request('/fold-in', dict(ratings=[dict(item=str(o), rating=float(rng.integers(1, 6))) for o in some], why=2))

def main(folder=None):
    c,rep = settings['service'],Report('service', 'what', 'measured', 'to reach')
    with tempfile.TemporaryDirectory() as d:
        if folder is None:
            learn = dot_learner(RecDataLoaders.from_movielens('ml-1m', seed=0), seed=0)
            with learn.no_bar(),learn.no_logging(): learn.fit_blend()
            folder = learn.save_recommender(Path(d)/'films', ratings=True)
        size = sum(o.stat().st_size for o in Path(folder).iterdir())/1e6
        starts = [Service(folder, 1) for _ in range(1)]
        for o in starts: o.stop()
        measure(rep, c, folder, size)
    rep.write()

def measure(rep, c, folder, size):
    seconds = c.getfloat('seconds')
    rng = np.random.default_rng(0)
    starts = []
    for _ in range(c.getint('starts')):
        one = Service(folder, 1)
        starts.append(one.seconds)
        one.stop()
    rep.add('from the start of a process to its first answer', f'**{median(starts):.1f} s**', f'≤ {c["max_start"]} s')
    rec = load_recommender(folder)
    users,items = (v.labels.to_numpy() for v in rec.ds.classes.values())
    asked = lists(rng.permutation(users))
    for workers in (1,2):
        service = Service(folder, workers)
        port = service.port
        asyncio.run(most_a_second(port, asked, 8, 2))
        most = asyncio.run(most_a_second(port, asked, 32, seconds))
        rep.add(f'lists of one user a second, {workers} worker(s), 32 clients', f'**{most:.0f}**', f'≥ {c["min_lists"]}')
        rate = min(.8*most, c.getfloat('min_lists')) if workers==0 else .8*most
        p = quantiles(asyncio.run(waits(port, asked, rate, seconds)), n=100)
        rep.add(f'waits for one of {rate:.0f} a second, median and 99th of a hundred', f'**{p[49]:.1f}, {p[98]:.1f} ms**',
                f'≤ {c["max_median"]}, {c["max_99"]} ms')
        new = newcomers(items, rng)
        asyncio.run(waits(port, new, 10, 2))
        rate = c.getfloat('newcomers')
        p = quantiles(asyncio.run(waits(port, new, rate, seconds)), n=100)
        rep.add(f'waits for the list of a newcomer with ten ratings and reasons, {rate:.0f} a second', f'**{p[49]:.1f}, {p[98]:.1f} ms**',
                f'99th ≤ {c["max_newcomers"]} ms')
        if workers==1: rep.add(f'memory of a process after that, beyond the folder ({size:.0f} MB)', f'**{service.megabytes()-size:.0f} MB**',
                               f'≤ {c["max_mb"]} MB')
        service.stop()

if __name__=='__main__': main(*sys.argv[1:])
