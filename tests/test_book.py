"""What readers of the fastai book write, chapter 8 and the lesson that goes with it: only the loaders' and the learner's name are changed.
On ratings of ml-100k's shape, and, in `make fuzz`, on ml-100k itself where it is"""
import warnings
import matplotlib,pandas as pd,pytest,torch
import torch.nn.functional as F
from torch import nn,tensor
from fastai.collab import *
from fastai.callback.all import TerminateOnNaNCallback
from fastai.tabular.all import (Categorify,CategoryBlock,Embedding,Learner,MSELossFlat,Module,RandomSplitter,TabularPandas,TransformBlock,get_emb_sz,load_learner,mae,one_hot,rmse,
                                set_seed,sigmoid_range)
from conftest import quietly,release_path
from fastrec.all import RecDataLoaders,RecLearner,learner,load_recommender,nn_learner,sample_ratings
matplotlib.use('Agg')
pytestmark = pytest.mark.filterwarnings('ignore:.*titles are shared')  # 18 of ml-100k's, which are told apart by their movie

# ------------------------------------------------------------------ the files of the release
def write_ml100k(path):
    "Files with the columns and separators that ml-100k has, of ratings that are drawn"
    df = sample_ratings(n_users=90, n_items=60, n_ratings=3000, seed=0)
    df['movie'] = df.item
    path.mkdir(parents=True)
    df[['user','movie','rating','timestamp']].to_csv(path/'u.data', sep='\t', header=False, index=False)
    films = df[['movie','title']].drop_duplicates().sort_values('movie')
    titles = films.title.astype(str).where(films.index!=films.index[0], 'Amélie au château (2001)')  # in latin-1, as the release's are
    films.assign(title=titles, date='01-Jan-1995', video='', url='').to_csv(path/'u.item', sep='|', header=False, index=False, encoding='latin-1')
    return path

@pytest.fixture(scope='module', params=['drawn',pytest.param('ml-100k', marks=pytest.mark.long)])
def path(request, tmp_path_factory):
    return write_ml100k(tmp_path_factory.mktemp('book')/'ml-100k') if request.param=='drawn' else release_path('ml-100k')

@pytest.fixture(scope='module')
def ratings(path):
    ratings = pd.read_csv(path/'u.data', delimiter='\t', header=None, names=['user','movie','rating','timestamp'])
    movies = pd.read_csv(path/'u.item', delimiter='|', encoding='latin-1', usecols=(0,1), names=('movie','title'), header=None)
    return ratings.merge(movies)

@pytest.fixture
def dls(ratings):
    set_seed(42)
    return RecDataLoaders.from_df(ratings, item_name='title', bs=64)

def fits(learn, *args, **kwargs):
    with learn.no_logging(): learn.fit_one_cycle(*args, **kwargs)
    return learn.recorder.values[-1]

@pytest.fixture(scope='module')
def trained(ratings):
    dls = RecDataLoaders.from_df(ratings, item_name='title', bs=64, seed=42)
    learn = learner(dls, n_factors=50, y_range=(0, 5.5))
    with quietly(): fits(learn, 2, 5e-3, wd=0.1)
    return learn

# ------------------------------------------------------------------ loaders
def test_show_batch(dls, capsys):
    dls.show_batch()
    shown = capsys.readouterr().out
    assert all(o in shown for o in ('user','title','rating'))

def test_classes(dls, ratings):
    titles = dls.classes['title']
    known = {o.split(' [')[0] for o in titles}&{*ratings.title}
    assert titles[0]=='#na#' and len(known)>.9*ratings.title.nunique() and list(dls.classes)==['user','title']
    for k in (1, len(titles)-1): assert titles.o2i[titles[k]]==k
    title = ratings.title[0]
    assert titles[titles.o2i[title]]==title and titles[tensor(titles.o2i[title])]==title
    assert titles.o2i['#na#']==0 and 'No such film' not in titles.o2i and titles.o2i.get('No such film') is None and len(titles.o2i)==len(titles)
    with pytest.raises(KeyError, match='No such film'): titles.o2i['No such film']  # in fastai it is 0
    with pytest.raises(TypeError): titles.o2i[title] = 3

def test_one_hot_is_a_row(dls):
    n_users,n_factors = len(dls.classes['user']),5
    user_factors = torch.randn(n_users, n_factors)
    one_hot_3 = one_hot(3, n_users).float()
    assert torch.equal(user_factors.t()@one_hot_3, user_factors[3])

def test_one_batch(dls):
    x,y = dls.one_batch()
    assert x.shape==(64,2) and len(y)==64 and x.min()>=1 and y.min()>=1 and y.max()<=5

# ------------------------------------------------------------------ models of one's own in a plain Learner
class DotProduct(Module):
    def __init__(self, n_users, n_movies, n_factors):
        self.user_factors,self.movie_factors = Embedding(n_users, n_factors),Embedding(n_movies, n_factors)
    def forward(self, x): return (self.user_factors(x[:,0])*self.movie_factors(x[:,1])).sum(dim=1)

class DotProductRange(DotProduct):
    def __init__(self, n_users, n_movies, n_factors, y_range=(0,5.5)):
        super().__init__(n_users, n_movies, n_factors)
        self.y_range = y_range
    def forward(self, x): return sigmoid_range(super().forward(x), *self.y_range)

class DotProductBias(Module):
    def __init__(self, n_users, n_movies, n_factors, y_range=(0,5.5)):
        self.user_factors,self.user_bias = Embedding(n_users, n_factors),Embedding(n_users, 1)
        self.movie_factors,self.movie_bias = Embedding(n_movies, n_factors),Embedding(n_movies, 1)
        self.y_range = y_range

    def forward(self, x):
        users,movies = self.user_factors(x[:,0]),self.movie_factors(x[:,1])
        res = (users*movies).sum(dim=1, keepdim=True)
        res += self.user_bias(x[:,0]) + self.movie_bias(x[:,1])
        return sigmoid_range(res, *self.y_range)

def create_params(size): return nn.Parameter(torch.zeros(*size).normal_(0, 0.01))

class DotProductParams(Module):
    def __init__(self, n_users, n_movies, n_factors, y_range=(0,5.5)):
        self.user_factors,self.user_bias = create_params([n_users, n_factors]),create_params([n_users])
        self.movie_factors,self.movie_bias = create_params([n_movies, n_factors]),create_params([n_movies])
        self.y_range = y_range

    def forward(self, x):
        users,movies = self.user_factors[x[:,0]],self.movie_factors[x[:,1]]
        res = (users*movies).sum(dim=1)
        res += self.user_bias[x[:,0]] + self.movie_bias[x[:,1]]
        return sigmoid_range(res, *self.y_range)

class CollabNN(Module):
    def __init__(self, user_sz, item_sz, y_range=(0,5.5), n_act=100):
        self.user_factors,self.item_factors = Embedding(*user_sz),Embedding(*item_sz)
        self.layers = nn.Sequential(nn.Linear(user_sz[1]+item_sz[1], n_act), nn.ReLU(), nn.Linear(n_act, 1))
        self.y_range = y_range

    def forward(self, x):
        embs = self.user_factors(x[:,0]),self.item_factors(x[:,1])
        return sigmoid_range(self.layers(torch.cat(embs, dim=1)), *self.y_range)

@pytest.mark.parametrize('arch', [DotProduct, DotProductRange, DotProductBias, DotProductParams])
def test_own_models(dls, arch):
    n_users,n_movies = len(dls.classes['user']),len(dls.classes['title'])
    learn = Learner(dls, arch(n_users, n_movies, 50), loss_func=MSELossFlat())
    before = learn.validate()[0]
    assert fits(learn, 1, 5e-3, wd=0.1)[-1]<before
    learn.recorder.plot_loss()

def test_own_network(dls):
    embs = get_emb_sz(dls)
    assert [o[0] for o in embs]==[len(o) for o in dls.classes.values()]
    learn = Learner(dls, CollabNN(*embs), loss_func=MSELossFlat())
    before = learn.validate()[0]
    assert fits(learn, 1, 5e-3, wd=0.01)[-1]<before

# ------------------------------------------------------------------ the learner that is there
def test_the_model_that_is_printed(trained):
    names = [n for n,_ in trained.model.named_children()]
    assert names==['u_weight','i_weight','u_bias','i_bias'] and all(n in repr(trained.model) for n in names)
    assert isinstance(trained.model, EmbeddingDotBias) and trained.model.u_weight.weight.shape==(len(trained.dls.classes['user']),50)

def test_films_by_their_bias(trained):
    learn,dls = trained,trained.dls
    movie_bias = learn.model.i_bias.weight.squeeze()
    idxs = movie_bias.argsort(descending=True)[:5]
    best = [dls.classes['title'][i] for i in idxs]
    idxs = movie_bias.argsort()[:5]
    worst = [dls.classes['title'][i] for i in idxs]
    ds = dls.train_ds
    mean = ds.decode(ds.x, ds.y).groupby('title').rating.mean()
    assert mean[best].min()>mean[worst].max()

def test_principal_components(trained, ratings):
    learn = trained
    g = ratings.groupby('title')['rating'].count()
    top_movies = g.sort_values(ascending=False).index.values[:1000]
    top_idxs = tensor([learn.dls.classes['title'].o2i[m] for m in top_movies if m in learn.dls.classes['title'].o2i])
    movie_w = learn.model.i_weight.weight[top_idxs].cpu().detach()
    movie_pca = movie_w.pca(3)
    fac0,fac1,fac2 = movie_pca.t()
    assert movie_pca.shape==(len(top_idxs),3) and fac0.std()>fac1.std()>fac2.std()
    assert torch.equal(movie_w, learn.model.weight([o for o in top_movies if o in learn.dls.classes['title'].o2i], is_item=True))

def test_the_film_that_is_closest(trained):
    dls,movie_factors = trained.dls,trained.model.i_weight.weight
    film = max(dls.classes['title'].o2i, key=lambda o: 'Silence of the Lambs, The (1991)'==o)
    idx = dls.classes['title'].o2i[film if film!='#na#' else dls.classes['title'][7]]
    distances = nn.CosineSimilarity(dim=1)(movie_factors, movie_factors[idx][None])
    idx2 = distances.argsort(descending=True)[1]
    assert dls.classes['title'][idx2]==trained.similar(dls.classes['title'][idx], n=1).title.iloc[0]

@pytest.mark.filterwarnings('ignore:the tastes that were found')  # one epoch finds none that held-out rows bear out
@pytest.mark.parametrize('make', [learner, nn_learner])
def test_use_nn(dls, make):
    learn = make(dls, use_nn=True, y_range=(0, 5.5), layers=[100,50])
    assert isinstance(learn.model, EmbeddingNN) and [o.out_features for o in learn.model.modules() if isinstance(o, nn.Linear)]==[100,50,1]
    assert 0<fits(learn, 1, 5e-3, wd=0.1)[1]<3 and learn.model.y_range==(0,5.5)

# ------------------------------------------------------------------ what everybody does with a learner
def test_whatever_a_learner_does(trained, tmp_path, capsys):
    learn = trained
    assert learn.lr_find(num_it=20, show_plot=False).valley>0
    learn.recorder.plot_loss()
    learn.show_results()
    assert 'rating_pred' in capsys.readouterr().out
    preds,targs = learn.get_preds()
    assert preds.shape==targs.shape==(len(learn.dls.valid_ds),) and learn.validate()[0]==pytest.approx(F.mse_loss(preds, targs).item(), rel=1e-4)
    user,title = (v[5] for v in learn.dls.classes.values())
    assert 0<learn.predict(user, title)<5.5
    summary = str(learn.summary())
    assert f'Total params: {sum(o.numel() for o in learn.model.parameters()):,}\n' in summary and summary.count('Embedding')==4
    learn.path = tmp_path
    learn.save('a'), learn.load('a')
    learn.export('e.pkl')
    with warnings.catch_warnings(action='ignore'): assert torch.equal(load_learner(tmp_path/'e.pkl').predict_grid(), learn.predict_grid())
    assert torch.equal(load_recommender(learn.save_recommender(tmp_path/'r'), 'cpu').predict_grid(), learn.predict_grid())

def test_fits_by_other_names(dls):
    learn = learner(dls, n_factors=8, y_range=(0, 5.5), cbs=[TerminateOnNaNCallback()], path='.', model_dir='m', metrics=[rmse,mae])
    with learn.no_logging():
        learn.fine_tune(1, 5e-3)
        learn.fit(1, 5e-3)
        learn.fit_flat_cos(1, 5e-3)
    assert learn.recorder.metric_names[1:-1]==['train_loss','valid_loss','rmse','mae'] and len(learn.history)==1
    assert learn.model_dir=='m' and learn.dls.bs==64

# ------------------------------------------------------------------ fastai's own loaders
@pytest.fixture
def stock(ratings):
    with warnings.catch_warnings(action='ignore'):  # of pandas' arrays that are read-only
        return CollabDataLoaders.from_df(ratings, item_name='title', bs=64, seed=42)

def test_stock_loaders(stock, ratings):
    learn = learner(stock, n_factors=50, y_range=(0, 5.5))
    ds = learn.dls.train_ds
    assert isinstance(learn, RecLearner) and learn.dls.train.bs==64 and len(learn.dls.valid_ds)==len(stock.valid_ds)
    assert all(list(learn.dls.classes[n])==list(stock.classes[n]) for n in ('user','title'))
    assert ds.x.tolist()==stock.train_ds.cats.to_numpy().tolist() and ds.y.tolist()==stock.train_ds.ys.to_numpy()[:,0].tolist()
    here = ds.decode(ds.x[:200], ds.y[:200])
    rows = ratings.loc[stock.train_ds.items.index[:200]]
    assert here.title.tolist()==rows.title.tolist() and here.user.tolist()==rows.user.tolist() and here.rating.tolist()==rows.rating.tolist()
    before = learn.validate()[0]
    assert fits(learn, 1, 5e-3, wd=0.1)[1]<before

def test_tabular_collab(ratings):
    with warnings.catch_warnings(action='ignore'):
        to = TabularCollab(ratings, [Categorify], ['user','title'], y_names='rating', y_block=TransformBlock(), splits=RandomSplitter(seed=1)(ratings))
        learn = learner(to, y_range=(0, 5.5))
        whole = TabularCollab(ratings, [Categorify], ['user','title'], y_names='rating', y_block=TransformBlock())
        three = TabularCollab(ratings, [Categorify], ['user','movie','title'], y_names='rating', y_block=TransformBlock(), splits=RandomSplitter(seed=1)(ratings))
        classes = TabularCollab(ratings, [Categorify], ['user','title'], y_names='rating', y_block=CategoryBlock(), splits=RandomSplitter(seed=1)(ratings))
        other = TabularPandas(ratings, [Categorify], ['user','title'], ['timestamp'], y_names='rating', splits=RandomSplitter(seed=1)(ratings)).dataloaders(64)
    assert learn.dls.train_ds.x.tolist()==to.train.cats.to_numpy().tolist() and learn.dls.classes['title'][3]==to.classes['title'][3]
    with pytest.raises(ValueError, match='0 validation ratings: pass splits'): learner(whole)
    with pytest.raises(TypeError, match=r"needs columns of user, item and rating, not \['user', 'movie', 'title'\]"): learner(three)
    with pytest.raises(TypeError, match='needs columns of user, item and rating'): learner(classes)
    with pytest.raises(TypeError, match='needs RecDataLoaders, .* not TabularDataLoaders'): learner(other)

def test_stock_ratings_without_a_user(ratings):
    with warnings.catch_warnings(action='ignore'):
        stock = CollabDataLoaders.from_df(ratings.assign(user=ratings.user.astype('float').where(ratings.index!=5)), 1e-3, item_name='title', bs=64, seed=42)
    with pytest.raises(ValueError, match='1 training ratings have no user or no item'): learner(stock)

def test_a_stock_learner_is_taken_over(stock):
    learn = collab_learner(stock, n_factors=8, y_range=(0, 5.5))
    fits(learn, 1, 5e-3)
    taken = RecLearner.from_learner(learn)
    known = torch.isin(taken.dls.valid_ds.x[:,1], taken.dls.train_ds.x[:,1])  # films of validation alone get the average
    assert known.float().mean()>.99 and torch.allclose(taken.get_preds()[0][known], learn.get_preds()[0].squeeze()[known], atol=1e-5)
