"""The service over a socket at ml-1m's size: seconds to the first answer, memory, lists a second, waits at four fifths of that, newcomers with reasons; writes results/service.md"""
import asyncio,gc,itertools,json,os,resource,signal,socket,subprocess,sys,tempfile,time,urllib.request
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
        pages = int(Path(f'/proc/{self.process.pid}/statm').read_text(encoding='utf-8').split()[1])
        return pages*resource.getpagesize()/1e6

    def cpu(self):
        "Seconds of CPU of the process and those that it has started"
        pids = [self.process.pid, *Path(f'/proc/{self.process.pid}/task/{self.process.pid}/children').read_text(encoding='utf-8').split()]
        ticks = [Path(f'/proc/{o}/stat').read_text(encoding='utf-8').rpartition(')')[2].split()[11:13] for o in pids]
        return sum(int(o) for pair in ticks for o in pair)/os.sysconf('SC_CLK_TCK')

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait()

def request(path, body=None):
    "The bytes of a request"
    data = b'' if body is None else json.dumps(body).encode()
    head = f'{"GET" if body is None else "POST"} {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {len(data)}\r\n\r\n'
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
    c,rep = settings['service'],Report('service', 'what', 'measured', 'CPU of the service', 'to reach')
    with tempfile.TemporaryDirectory() as d:
        if folder is None:
            learn = dot_learner(RecDataLoaders.from_movielens('ml-1m', seed=0), seed=0)
            with learn.no_bar(),learn.no_logging(): learn.fit_blend()
            folder = learn.save_recommender(Path(d)/'films', ratings=True)
        start(rep, c, folder)
        for workers in (1,2): measure(rep, c, folder, workers)
    rep.write()

def start(rep, c, folder):
    seconds,cpu = [],[]
    for _ in range(c.getint('starts')):
        service = Service(folder, 1)
        seconds.append(service.seconds)
        cpu.append(service.cpu())
        service.stop()
    rep.add('from the start of a process to its first answer', f'**{median(seconds):.1f} s**', f'**{median(cpu):.1f} s**', f'≤ {c["max_start"]} s')

def timed(rep, service, what, port, asked, rate, seconds, bound):
    "A row of how long who asks at this `rate` waits"
    cpu = service.cpu()
    ms = asyncio.run(waits(port, asked, rate, seconds))
    cpu = 1000*(service.cpu()-cpu)/len(ms)
    p = quantiles(ms, n=100)
    rep.add(f'{what}, {rate:.0f} a second: median and 99th of a hundred waits', f'**{p[49]:.1f}, {p[98]:.1f} ms**', f'{cpu:.1f} ms each', bound)

def measure(rep, c, folder, workers):
    seconds,rng = c.getfloat('seconds'),np.random.default_rng(0)
    users,items = (v.labels.to_numpy() for v in load_recommender(folder).ds.classes.values())
    service,asked = Service(folder, workers),lists(rng.permutation(users))
    gc.collect()
    gc.freeze()  # else clients would wait for a collection of all that is loaded here, a fifth of a second
    asyncio.run(most_a_second(service.port, asked, 8, 2))
    cpu = service.cpu()
    most = asyncio.run(most_a_second(service.port, asked, 32, seconds))
    cpu = 1000*(service.cpu()-cpu)/(most*seconds)
    said = f'{workers} worker{"s" if workers>1 else ""}'
    rep.add(f'{said}, lists of one user a second, for 32 clients who ask again at once', f'**{most:.0f}**', f'**{cpu:.1f} ms** each', f'≥ {c["min_lists"]}')
    for rate,bound in ((.8*c.getfloat('min_lists'), f'≤ {c["max_median"]}, {c["max_99"]} ms'), (.8*most, '')):
        timed(rep, service, f'{said}, lists of one user', service.port, asked, rate, seconds, bound)
    new = newcomers(items, rng)
    asyncio.run(waits(service.port, new, 10, 2))
    timed(rep, service, f'{said}, newcomers with ten ratings, and two reasons for each place', service.port, new, c.getfloat('newcomers'), seconds,
          f'99th ≤ {c["max_newcomers"]} ms')
    size = sum(o.stat().st_size for o in Path(folder).iterdir())/1e6
    if workers==1: rep.add(f'memory of the process after that, beyond the folder ({size:.0f} MB)', f'**{service.megabytes()-size:.0f} MB**', '', f'≤ {c["max_mb"]} MB')
    service.stop()

if __name__=='__main__': main(*sys.argv[1:])
