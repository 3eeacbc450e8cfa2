"""The service for ten minutes, as on a bad day: load, a new model every so often, slow and broken clients, malformed bodies, killed workers; writes results/soak.md

    python benchmarks/soak.py [folder] [another folder] [--seconds 600]"""
import asyncio,itertools,json,os,random,re,signal,sys,tempfile,time
from collections import Counter
from statistics import median,quantiles
from report import Report,settings
from service import Service,request
from fastrec.all import *

def words(path): return Path(path).read_text(encoding='utf-8').split()

class Watched(Service):
    "A service whose workers are known by their process"
    def workers(self):
        "The processes that answer, without the one that Python tracks resources with"
        children = words(f'/proc/{self.process.pid}/task/{self.process.pid}/children')
        return [int(o) for o in children if 'resource_tracker' not in Path(f'/proc/{o}/cmdline').read_text(encoding='utf-8')]

    def own_megabytes(self):
        "Memory of all workers that is theirs alone, without what is mapped from the folder"
        kb = [int(line.split()[1]) for o in self.workers() for line in Path(f'/proc/{o}/smaps_rollup').read_text(encoding='utf-8').splitlines() if line.startswith('Private_Dirty')]
        return sum(kb)/1000

async def answer_to(port, data, seconds=30):
    "Status and JSON of the answer to `data`, sent over a connection of its own"
    async with asyncio.timeout(seconds):
        reader,writer = await asyncio.open_connection('127.0.0.1', port)
        try:
            writer.write(data.replace(b'host: localhost', b'host: localhost\r\nconnection: close'))
            head = await reader.readuntil(b'\r\n\r\n')
            return int(head.split()[1]),json.loads(await reader.read())
        finally: writer.close()

malformed = [b'{', b'\xff\xfe', b'null', b'{"user": NaN}', b'['*10_000, b'{"ratings": [{"item": "a", "rating": Infinity}]}', b'{"n": -1}', b'{"user": {"$gt": 0}}', b'x'*2**19]

def broken_request():
    body = random.choice(malformed)
    return b'POST /recommend HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n' % len(body) + body

async def slow_or_broken(port):
    "A client that says nothing, sends a byte now and then, goes away in the midst of its body, or is cut off"
    try:
        reader,writer = await asyncio.open_connection('127.0.0.1', port)
        whole = request('/fold-in', dict(ratings=[dict(item='a', rating=3.)]*50))
        how = random.randrange(4)
        if how==1:
            for o in whole[:40]:
                writer.write(bytes([o]))
                await writer.drain()
                await asyncio.sleep(1)
        if how==2: writer.write(whole[:-20])
        if how==3:
            writer.write(whole[:random.randrange(1, len(whole))])
            writer.transport.abort()
        await asyncio.wait_for(reader.read(), 60)
        writer.close()
    except (OSError,TimeoutError): pass  # as is to be expected of these

async def most_a_second(port, users, n, seconds):
    "Answers a second to `n` clients who ask again at once, each time over a connection of its own"
    count,stop = 0,time.perf_counter()+seconds
    async def client():
        nonlocal count
        while time.perf_counter()<stop:
            await answer_to(port, request(f'/recommend?user={random.choice(users)}&n=10'))
            count += 1
    await asyncio.gather(*[client() for _ in range(n)])
    return count/seconds

class Day:
    "What has happened: answers by kind, milliseconds of waiting, seconds until workers were back, megabytes"
    def __init__(self, service, folder, recs, users):
        self.service,self.folder,self.users = service,folder,users
        self.recs = recs
        self.want = [{u: r.recommend(u, n=10).iloc[:,2].tolist() for u in users} for r in recs]
        self.lists = {}  # by the model that answers
        self.seen,self.ms,self.back,self.mb,self.n_slow = Counter(),[],[],[],0

    def swap(self, k):
        "Save the `k`th model, from what is known to come of it"
        self.recs[k].save_recommender(self.folder, ratings=True)
        name = json.loads((self.folder/'manifest.json').read_text(encoding='utf-8'))['checksum'][:12]
        self.lists[name] = self.want[k]

    async def one(self, user, due):
        try: status,got = await answer_to(self.service.port, request(f'/recommend?user={user}&n=10'))
        except (OSError,TimeoutError,asyncio.IncompleteReadError): self.seen['cut off'] += 1
        else:
            if status!=200: self.seen[str(status)] += 1
            else:
                while got['model'] not in self.lists: await asyncio.sleep(.05)  # saved, and not yet known here
                is_right = [o['item'] for o in got['items']]==self.lists[got['model']][user]
                self.seen['right' if is_right else 'wrong'] += 1
                self.ms.append(1000*(time.perf_counter()-due))

    async def one_broken(self):
        try: status,_ = await answer_to(self.service.port, broken_request())
        except (OSError,TimeoutError,ValueError,asyncio.IncompleteReadError): self.seen['malformed, cut off'] += 1
        else: self.seen[f'malformed, {status}'] += 1

    async def load(self, rate, share, stop):
        "`rate` questions a second, due whether or not others have been answered, a `share` of them malformed"
        begin,asked,users = time.perf_counter(),set(),itertools.cycle(self.users)
        for k in itertools.count():
            due = begin+k/rate
            if due>stop: break
            await asyncio.sleep(max(0, due-time.perf_counter()))
            task = asyncio.create_task(self.one_broken() if random.random()<share else self.one(next(users), due))
            asked.add(task)
            task.add_done_callback(asked.discard)
        await asyncio.gather(*asked)

    async def swaps(self, every, stop):
        for k in itertools.count(1):
            await asyncio.sleep(every)
            if time.perf_counter()>stop: return
            await asyncio.to_thread(self.swap, k%len(self.recs))

    async def kills(self, every, stop):
        while True:
            await asyncio.sleep(every)
            if time.perf_counter()>stop-every/2: return
            before,start = self.service.workers(),time.perf_counter()
            os.kill(before[0], signal.SIGKILL)
            while True:
                await asyncio.sleep(.1)
                new = {*self.service.workers()}-{*before}
                if new and await self.all_serve(): break
            self.back.append(time.perf_counter()-start)

    async def all_serve(self):
        "Has each worker begun to serve?"
        reader,writer = await asyncio.open_connection('127.0.0.1', self.service.port)
        writer.write(b'GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n')
        try: text = await reader.read()
        except OSError: text = b''
        writer.close()
        return b'resident_bytes' in text and not re.search(rb'resident_bytes{.*} 0\n', text)

    async def slow(self, each_second, stop):
        clients = []
        while time.perf_counter()<stop:
            clients.append(asyncio.create_task(slow_or_broken(self.service.port)))
            self.n_slow += 1
            await asyncio.sleep(1/each_second)
        for o in clients: o.cancel()

    async def memory(self, stop):
        while time.perf_counter()<stop:
            await asyncio.sleep(5)
            try: self.mb.append(self.service.own_megabytes())
            except OSError: continue  # a worker has just been killed

    async def run(self, c, seconds, rate):
        stop = time.perf_counter()+seconds
        await asyncio.gather(
            self.load(rate, c.getfloat('malformed'), stop), self.swaps(c.getfloat('swap'), stop),
            self.kills(c.getfloat('kill'), stop), self.slow(c.getint('slow')/seconds, stop), self.memory(stop))

def tell(rep, day):
    p = quantiles(day.ms, n=100)
    wrong = day.seen['wrong']
    errors = sum(n for k,n in day.seen.items() if k.split(', ')[-1][:1]=='5' and not k.endswith('503'))
    third = len(day.mb)//3
    first,last = median(day.mb[:third]),median(day.mb[-third:])
    rep.add('answers by kind', ', '.join(f'{n:,} {k}' for k,n in sorted(day.seen.items(), key=lambda o: -o[1])), '')
    rep.add('wrong answers; 5xx other than 503', f'**{wrong}; {errors}**', '0; 0')
    rep.add(f'waits of {len(day.ms):,} lists, median and 99th of a hundred', f'**{p[49]:.0f}, {p[98]:.0f} ms**', '')
    rep.add('slow and broken clients at the same time, and models that took the place of another', f'{day.n_slow:,}; {len(day.lists)-1}', '')
    rep.add(f'seconds until a killed worker was replaced by one that answers, each of {len(day.back)}', ', '.join(f'{o:.1f}' for o in day.back), '≤ 5')
    rep.add('own memory of the workers: the last third of the time, compared with the first', f'{first:.0f} and {last:.0f} MB, **{last/first-1:+.1%}**', '≤ 5%')

def main(*args):
    c,rep = settings['soak'],Report('soak', 'what', 'measured', 'to reach')
    seconds = float(args[args.index('--seconds')+1]) if '--seconds' in args else c.getfloat('seconds')
    folders = list(itertools.takewhile(lambda o: o!='--seconds', args))
    with tempfile.TemporaryDirectory() as d:
        if not folders:
            dls = RecDataLoaders.from_movielens('ml-1m', seed=0)
            for fit in ('fit_blend','fit_ials'):
                learn = dot_learner(dls, seed=0)
                with learn.no_bar(),learn.no_logging(): getattr(learn, fit)()
                folders.append(learn.save_recommender(Path(d)/fit, ratings=True))
        recs = [load_recommender(o) for o in folders]
        users = np.random.default_rng(0).choice(recs[0].ds.classes['user'].labels.to_numpy(), c.getint('users'), replace=False).tolist()
        folder = Path(d)/'served'
        recs[0].save_recommender(folder, ratings=True)
        n_workers = c.getint('workers')
        service = Watched(folder, n_workers)
        day = Day(service, folder, recs, users)
        day.lists[json.loads(service.get('/version'))['model']] = day.want[0]
        asyncio.run(most_a_second(service.port, users, 8, 3))
        most = asyncio.run(most_a_second(service.port, users, c.getint('clients'), c.getfloat('measured')))
        rate = c.getfloat('load')*most
        asyncio.run(day.run(c, seconds, rate))
        rep.add(f'lists a second at most, and asked for over {seconds/60:.0f} minutes', f'{most:.0f} and {rate:.0f}', '')
        tell(rep, day)
        service.stop()
    rep.write()

if __name__=='__main__': main(*sys.argv[1:])
